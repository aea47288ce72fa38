"""What imports bring, in fresh processes: a camera needs no metrics."""

from __future__ import annotations

import re
from pathlib import Path

CAMERA = """
import sys
import eventful_vitdet.predictor, eventful_vitdet.video
import eventful_vitdet.control, eventful_vitdet.draw.annotated_video, eventful_vitdet.live.detector_session
import detectron2
# The real Detectron2 imports pycocotools by itself.
heavy = ("eventful_vitdet.evaluation", *(["pycocotools"] if "embedded" in detectron2.__version__ else []))
found = sorted(name for name in sys.modules if name.startswith(heavy))
assert not found, found
"""
MODELS = """
import sys, eventful_vitdet.modeling, detectron2.modeling
assert "embedded" not in detectron2.__version__ or "fvcore.nn" not in sys.modules
packages = ("eventful_vit.ops.gpu.", "eventful_vitdet.modeling.gpu_detector.")
found = {name for name in sys.modules if name.startswith(packages)}
without_kernels = {"eventful_vit.ops.gpu.graph", "eventful_vit.ops.gpu.device_facts"}
assert "eventful_vit.ops.gpu" in sys.modules and found <= without_kernels, found
"""
KEYS = """
import eventful_vitdet
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog
from detectron2.modeling import META_ARCH_REGISTRY
from eventful_vitdet import add_eventful_vitdet_config
add_eventful_vitdet_config(get_cfg())
assert "VideoRCNN" in META_ARCH_REGISTRY and "imagenet_vid_val" in DatasetCatalog.list()
"""


def test_running_a_camera_needs_no_evaluation(forked_programs):
    forked_programs.check(CAMERA)


def test_building_models_needs_no_analysis_tools_and_no_kernels_of_a_gpu(forked_programs):
    """fvcore.nn counts and prints operations; importing it takes long, and warns. Kernels are imported by the first
    frame on a GPU. (Triton itself is imported by PyTorch, where it is installed.)"""
    forked_programs.check(MODELS)


def test_adding_the_keys_registers_what_they_name(forked_programs):
    """Also where nothing else of the package was imported before."""
    forked_programs.check(KEYS)


def required_versions(repository: Path, name: str) -> dict[str, str]:
    """A list of requirements in pyproject.toml (which Python 3.9 and 3.10 cannot read): the oldest version of each."""
    section = (repository / "pyproject.toml").read_text().split(f"\n{name} = [")[1].split("]\n")[0]
    return dict(re.findall(r'"([\w-]+)>=([\w.]+)', section))


def pinned_versions(path: Path) -> dict[str, str]:
    """The versions that a file of constraints names."""
    return dict(re.findall(r"^([\w-]+)==(\S+)$", path.read_text(), re.MULTILINE))


def test_what_setup_requires_is_imported(repository):
    """Each required package is imported somewhere; what another package needs, it brings itself."""
    names = {"Jinja2": "jinja2", "Pillow": "PIL", "opencv-python-headless": "cv2"}
    names["tensorboard"] = "torch.utils.tensorboard"
    required = required_versions(repository, "dependencies")
    assert len(required) > 8
    sources = "\n".join(path.read_text() for path in (repository / "projects").rglob("*.py"))
    for package in required:
        name = names.get(package, package)
        assert f"import {name}" in sources or f"from {name}" in sources, f"{package} is required and not imported"


def test_the_oldest_set_is_what_the_metadata_admits(repository):
    """So that `make test-matrix` tests each version that somebody may have to install."""
    oldest = pinned_versions(repository / "tests" / "versions" / "oldest.txt")
    newest = pinned_versions(repository / "constraints.txt")
    later = {"ruff"}  # a tool, of which the tests need nothing
    for section in ("dependencies", "live", "timm", "test-tools"):
        for package, version in required_versions(repository, section).items():
            if package not in later:
                assert f"{oldest[package.lower()]}.".startswith(f"{version}."), package
            assert package.lower() in newest, package
