"""Fixtures for the whole suite. Importing eventful_vitdet also makes the embedded Detectron2 importable."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# The models here are so small that a second thread only waits for the first, and that busily.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402
import torch  # noqa: E402

if not torch.cuda.is_available():  # before anybody imports Triton
    os.environ.setdefault("TRITON_INTERPRET", "1")

import eventful_vitdet  # noqa: E402, F401

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY / "tests"))  # whatever pytest's import mode: folders use each other's fixtures

from forked_programs import ForkedPrograms  # noqa: E402
from kept_loggers import kept_loggers  # noqa: E402
from modeling.conftest import tiny_cfg, tiny_model  # noqa: E402
from quick_interpreter import patch_language_once  # noqa: E402
from vit.conftest import full_float32  # noqa: E402

__all__ = ["full_float32", "tiny_cfg", "tiny_model"]


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of reference data."""
    return REPOSITORY / "tests" / "golden"


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def render_videos(repository) -> Callable[..., None]:
    """Calls datasets/render_synthetic_vid.py in this process, with its options: one of its own imports for seconds."""
    sys.path.append(str(repository / "datasets"))
    renderer = importlib.import_module("render_synthetic_vid")

    def render(folder: Path, split: str, videos: int, frames: int, *words: str) -> None:
        sizes = ["--videos", str(videos), "--frames", str(frames)]
        assert renderer.main(["--output", str(folder), "--split", split, *sizes, *words]) == 0

    return render


@pytest.fixture(scope="session")
def forked_programs(tmp_path_factory) -> Iterator[ForkedPrograms]:
    programs = ForkedPrograms(tmp_path_factory.mktemp("programs"))
    yield programs
    programs.end()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder that holds airborne_vid, where it is there; tests that need it are skipped elsewhere."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not (folder / "airborne_vid").is_dir():
        pytest.skip("the airborne_vid data set is not beside the repository (../shared/data)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_video_indices(tmp_path_factory) -> Iterator[None]:
    """Indices of the tests' videos are not kept in the user's cache folder."""
    folder = str(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eventful_vitdet.video.index_files.user_cache_folder", lambda: folder)
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_interpreter() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if not torch.cuda.is_available():
            patch_language_once(patch)
        yield


@pytest.fixture(autouse=True)
def seeded() -> None:
    if torch.cuda.is_available():
        torch.manual_seed(0)
    else:  # without a formatted stack for each kind of device that might come to be used: seconds in thousands of tests
        torch.default_generator.manual_seed(0)


@pytest.fixture(autouse=True)
def loggers_as_before(monkeypatch) -> Iterator[None]:
    """Commands keep these loggers to themselves, which would hide them from `caplog`, and print, in later tests."""
    monkeypatch.delenv("TQDM_DISABLE", raising=False)  # what a quiet command sets ends with its test
    with kept_loggers():
        yield
