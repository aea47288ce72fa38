from .evaluator import DatasetEvaluator

__all__ = ["DatasetEvaluator"]
