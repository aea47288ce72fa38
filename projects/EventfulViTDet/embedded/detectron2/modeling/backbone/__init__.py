from .backbone import BACKBONE_REGISTRY, Backbone

__all__ = ["BACKBONE_REGISTRY", "Backbone"]
