"""The data set and the model of the evaluation's tests serve here too."""

from evaluation.conftest import HEIGHT, WIDTH, cfg, dataset, model, write_dataset

__all__ = ["HEIGHT", "WIDTH", "cfg", "dataset", "model", "write_dataset"]
