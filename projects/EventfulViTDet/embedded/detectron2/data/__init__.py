from .build import build_detection_train_loader
from .catalog import DatasetCatalog, MetadataCatalog

__all__ = ["DatasetCatalog", "MetadataCatalog", "build_detection_train_loader"]
