"""What makes two evaluations different ones: everything that decides numbers, and nothing else."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import detectron2
import eventful_vit
import eventful_vitdet
import pytest
import torch
from detectron2.config import CfgNode
from eventful_vitdet.evaluation import computing_code, fingerprint
from eventful_vitdet.evaluation.computing_code import DETECTRON2, OURS, describe_tree, hash_code
from eventful_vitdet.evaluation.fingerprint import make_fingerprint, name_differences
from eventful_vitdet.evaluation.stored_detections import StoredDetections

CODE = '''
"""A module."""
class A(B):
    """A class."""
    x: int = 3
    """An attribute."""

    def f(self, a, *, b=None):
        """A function."""
        return f"{a} {b!r}" + "text"
'''


def make(cfg: CfgNode, policy: str = "top-r 256", device: str = "cpu") -> dict:
    named = {"weights": "w", "dataset": "d", "threads": 1}
    return make_fingerprint(cfg, policy=policy, stored=StoredDetections.of(cfg), device=device, **named)


def changed(cfg: CfgNode, key: str, value: object) -> CfgNode:
    other = cfg.clone()
    node = other
    *parts, leaf = key.split(".")
    for part in parts:
        node = node[part]
    assert node[leaf] != value
    node[leaf] = value
    return other


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return f", "# a comment\n\n        return f"),
        ("A function.", "What it does."),
        ('"""A module."""', ""),
        ('    """An attribute."""\n', ""),
        ("x: int = 3", "x: int = (3)  # three"),
        ('"text"', "'text'"),
    ],
)
def test_comments_and_layout_do_not_change_code(old, new):
    assert old in CODE
    assert words(CODE.replace(old, new)) == words(CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [("= 3", "= 4"), ('"text"', '"test"'), ("!r", ""), ("b=None", "b=0"), ("A(B)", "A"), ("f(self", "g(self")],
)
def test_anything_else_changes_it(old, new):
    assert old in CODE
    assert words(CODE.replace(old, new)) != words(CODE)


def words(code: str) -> list[str]:
    return list(describe_tree(ast.parse(code)))


@pytest.fixture
def copies(tmp_path) -> Path:
    """Copies of this package and of Detectron2, to change."""
    for package in (eventful_vitdet, detectron2):
        folder = Path(package.__file__).parent
        ignored = shutil.ignore_patterns("__pycache__", "embedded", "*.so")
        shutil.copytree(folder, tmp_path / folder.name, ignore=ignored)
    return tmp_path


@pytest.mark.parametrize("part", OURS)
def test_all_parts_of_a_frames_way_count(copies, part):
    """Those that the list names exist, and a change in any of them is seen."""
    package = copies / "eventful_vitdet"
    before = hash_code(package, OURS)
    assert before == computing_code.hash_our_code()
    path = package / part if part.endswith(".py") else sorted((package / part).rglob("*.py"))[-1]
    touch(path, "# a comment\n")
    assert hash_code(package, OURS) == before
    touch(path, "x = 1\n")
    assert hash_code(package, OURS) != before


@pytest.mark.parametrize("part", DETECTRON2)
def test_detectron2_counts(copies, part):
    package = copies / "detectron2"
    names = [name if (package / name).is_dir() else f"{name}.py" for name in DETECTRON2]
    before = hash_code(package, names)
    assert before == computing_code.hash_detectron2()
    path = package / f"{part}.py"
    touch(path if path.is_file() else package / part / "__init__.py", "x = 1\n")
    assert hash_code(package, names) != before


def test_the_transformer_counts(tmp_path):
    folder = Path(eventful_vit.__file__).parent
    package = tmp_path / folder.name
    shutil.copytree(folder, package, ignore=shutil.ignore_patterns("__pycache__"))
    before = hash_code(package, ["."])
    assert before == computing_code.hash_transformer()
    for name in ("gate.py", "ops/gpu/linear.py"):
        touch(package / name, "x = 1\n")
        last, before = before, hash_code(package, ["."])
        assert last != before


def touch(path: Path, line: str) -> None:
    path.write_text(path.read_text() + line)


def test_code_that_is_not_there_is_no_code(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.py: is listed as code that results depend on"):
        hash_code(tmp_path, ["absent.py"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.WEIGHTS", "x.pth"),
        ("MODEL.WEIGHTS_SET", "model_ema"),
        ("MODEL.REINITIALIZE", ("roi_heads",)),
        ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.7),
        ("MODEL.RPN.POST_NMS_TOPK_TRAIN", 7),
        ("MODEL.RPN.LOSS_WEIGHT", 7.0),
        ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 7),
        ("MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA", 0.7),
        ("MODEL.VIT.DROP_PATH_RATE", 0.7),
        ("MODEL.VIVIT.DROPOUT", 0.7),
        ("MODEL.VIVIT.FREEZE_SPATIAL", True),
        ("MODEL.VIVIT.TRAIN_WITH_GATES", True),
        ("MODEL.EVENTFUL.CONTROLLER.R_MIN", 7),
        ("MODEL.EVENTFUL.PYRAMID.R", 7),
        ("SOLVER.BASE_LR", 7.0),
        ("TEST.DETECTIONS_PER_IMAGE", 7),
    ],
)
def test_what_decides_nothing(cfg, key, value):
    assert make(changed(cfg, key, value)) == make(cfg)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.RPN.POST_NMS_TOPK_TEST", 7),
        ("MODEL.ROI_HEADS.NMS_THRESH_TEST", 0.7),
        ("MODEL.PIXEL_MEAN", [1.0, 2.0, 3.0]),
        ("MODEL.VIT.WINDOW_SIZE", 7),
        ("MODEL.EVENTFUL.KV_POOL", 2),
        ("MODEL.EVENTFUL.COMPUTE_DTYPE", "bfloat16"),
        ("INPUT.MAX_SIZE_TEST", 700),
        ("TEST.STREAMS_PER_BATCH", 2),
    ],
)
@pytest.mark.parametrize("policy", ["dense", "top-r 256"])
def test_what_decides_numbers(cfg, key, value, policy):
    before, now = make(cfg, policy), make(changed(cfg, key, value), policy)
    assert name_differences(before, now).startswith(f"{key} was ")


@pytest.mark.parametrize(("key", "value"), [("STATE_DTYPE", "bfloat16"), ("GATE_BEFORE_NORM", True)])
def test_the_dense_model_does_not_depend_on_the_eventful_one(cfg, key, value):
    other = changed(cfg, f"MODEL.EVENTFUL.{key}", value)
    assert make(other, "dense") == make(cfg, "dense") and make(other) != make(cfg)


def test_the_crossover_counts_on_a_gpu_only(cfg):
    other = changed(cfg, "MODEL.EVENTFUL.GPU_CROSSOVER", 0.5)
    assert make(other) == make(cfg)
    assert make(other, device="cuda (a GPU)") != make(cfg, device="cuda (a GPU)")


def test_the_incremental_pyramid_counts_where_it_is_used(cfg):
    used = changed(cfg, "MODEL.EVENTFUL.PYRAMID.ENABLED", True)
    assert make(used) != make(cfg) and make(used, "dense") == make(cfg, "dense")
    assert make(changed(used, "MODEL.EVENTFUL.PYRAMID.R", 7)) != make(used)


def test_versions_and_the_processors_instructions_are_named(cfg, monkeypatch):
    before = make(cfg)
    monkeypatch.setattr(torch, "__version__", "1.0")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "NO VECTORS")
    text = name_differences(before, make(cfg))
    assert "torch was " in text and "now it is 1.0" in text and "now it is NO VECTORS" in text


def test_which_kernels_a_gpu_runs_is_named(cfg, monkeypatch):
    before = make(cfg, device="cuda (a GPU)")
    monkeypatch.setattr(fingerprint.gpu, "describe_kernels", lambda: "kernels-0")
    assert "now it is kernels-0" in name_differences(before, make(cfg, device="cuda (a GPU)"))


def test_a_gpus_rounding_is_named(cfg, monkeypatch):
    before = make(cfg, device="cuda (a GPU)")
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    assert "products medium" in name_differences(before, make(cfg, device="cuda (a GPU)"))


def test_only_some_differences_are_named():
    found, wanted = {str(i): 0 for i in range(9)}, {str(i): 1 for i in range(9)}
    assert name_differences(found, wanted).endswith(f"and {9 - fingerprint.MAX_NAMED} more")
    text = "b was not there, now it is [1, 2]; a was 1, now it is not there"
    assert name_differences({"a": 1}, {"b": (1, 2)}) == text
