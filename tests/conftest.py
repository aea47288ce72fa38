"""Fixtures for the whole suite. Importing eventful_vitdet also makes the embedded Detectron2 importable."""

import logging
from pathlib import Path

import eventful_vitdet  # noqa: F401
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of reference data."""
    return REPOSITORY / "tests" / "golden"


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder that holds airborne_vid, where it is there; tests that need it are skipped elsewhere."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not (folder / "airborne_vid").is_dir():
        pytest.skip("the airborne_vid data set is not beside the repository (../shared/data)")
    return folder


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def log_seen_by_pytest() -> None:
    """A tool that ran in an earlier test may have kept these loggers to itself, which hides them from `caplog`."""
    for name in ("eventful_vitdet", "detectron2"):
        logging.getLogger(name).propagate = True
