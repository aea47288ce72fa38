"""Which parts can do without which: a camera needs no metrics."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import eventful_vitdet

PROGRAM = """
import sys
import eventful_vitdet.predictor, eventful_vitdet.video
import eventful_vitdet.control, eventful_vitdet.draw.annotated_video, eventful_vitdet.live.session
import detectron2
# The real Detectron2 imports pycocotools by itself.
heavy = ("eventful_vitdet.evaluation", *(["pycocotools"] if "embedded" in detectron2.__version__ else []))
found = sorted(name for name in sys.modules if name.startswith(heavy))
assert not found, found
"""


def run(program: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(eventful_vitdet.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_running_a_camera_needs_no_evaluation():
    run(PROGRAM)


def test_building_models_needs_no_analysis_tools_and_no_kernels_of_a_gpu():
    """fvcore.nn counts and prints operations; importing it takes long, and warns. Kernels are imported by the first
    frame on a GPU. (Triton itself is imported by PyTorch, where it is installed.)"""
    run(
        "import sys, eventful_vitdet.modeling, detectron2.modeling\n"
        "assert 'embedded' not in detectron2.__version__ or 'fvcore.nn' not in sys.modules\n"
        "packages = ('eventful_vit.ops.gpu.', 'eventful_vitdet.modeling.gpu_detector.')\n"
        "found = {name for name in sys.modules if name.startswith(packages)}\n"
        "without_kernels = {'eventful_vit.ops.gpu.graph', 'eventful_vit.ops.gpu.device_facts'}\n"
        "assert 'eventful_vit.ops.gpu' in sys.modules and found <= without_kernels, found"
    )


def test_what_setup_requires_is_imported(repository):
    """Each required package is imported somewhere; what another package needs, it brings itself."""
    names = {"Jinja2": "jinja2", "Pillow": "PIL", "opencv-python-headless": "cv2"}
    names["tensorboard"] = "torch.utils.tensorboard"
    section = (repository / "setup.py").read_text().split("install_requires=[")[1].split("]")[0]
    required = re.findall(r'"([\w-]+)>=', section)
    assert len(required) > 8
    sources = "\n".join(path.read_text() for path in (repository / "projects").rglob("*.py"))
    for package in required:
        name = names.get(package, package)
        assert f"import {name}" in sources or f"from {name}" in sources, f"{package} is required and not imported"
