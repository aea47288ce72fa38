"""The data set and the model of the evaluation's tests serve here too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the tests' folder, whatever pytest's import mode

from evaluation.conftest import HEIGHT, WIDTH, cfg, dataset, model, write_dataset  # noqa: E402

__all__ = ["HEIGHT", "WIDTH", "cfg", "dataset", "model", "write_dataset"]
