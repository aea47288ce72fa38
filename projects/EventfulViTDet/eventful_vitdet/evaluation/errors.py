"""Errors of an evaluation; their messages are for the user."""


class EvaluationError(ValueError):
    """What is evaluated cannot be: no ground truth, detections that are no numbers, unknown budgets."""
