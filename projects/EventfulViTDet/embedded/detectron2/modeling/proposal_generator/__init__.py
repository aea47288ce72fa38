from .rpn import PROPOSAL_GENERATOR_REGISTRY, RPN, build_proposal_generator

__all__ = ["PROPOSAL_GENERATOR_REGISTRY", "RPN", "build_proposal_generator"]
