"""Action recognition: data sets of clips, evaluation, fine-tuning, and recognition in running video."""

from .action_sets import ActionSet, is_action_set, load_action_set, register_action_csv, register_builtin_action_sets

__all__ = ["ActionSet", "is_action_set", "load_action_set", "register_action_csv", "register_builtin_action_sets"]

register_builtin_action_sets()
