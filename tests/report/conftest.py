"""The data set of the evaluation's tests serves here too."""

from evaluation.conftest import dataset, write_dataset

__all__ = ["dataset", "write_dataset"]
