"""What a wheel, made of an sdist, installs: a package that is complete outside of the repository, and its command."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
from pathlib import Path

import eventful_vitdet
import pytest
from eventful_vitdet.video import probe_video
from video.encoded_videos import encode

CHECK = """
from pathlib import Path
import eventful_vitdet
package = Path(eventful_vitdet.__file__).parent
assert str(package).startswith({target!r}), package
assert (package / "embedded" / "detectron2" / "modeling" / "__init__.py").is_file()
assert (package / "live" / "page" / "index.html").is_file()
assert (package / "report" / "templates" / "page.css").is_file()
assert (package / "py.typed").is_file() and (package.parent / "eventful_vit" / "py.typed").is_file()
assert (package / "class_lists" / "coco.txt").is_file()
assert (package / "configs" / "lazy" / "mask_rcnn_vitdet_b.py").is_file()
assert (package.parent / "eventful_vit" / "ops" / "cpu" / "kernels.h").is_file()
import detectron2
from eventful_vitdet.config_files import build_cfg, find_config
import eventful_vitdet.modeling
assert str(find_config("imagenet_vid/vitdet_b_672.yaml")).startswith({target!r})
assert build_cfg("lvis/mask_rcnn_vitdet_l.yaml").MODEL.VIT.DEPTH == 24
assert build_cfg("airborne_vid/vitdet_small.yaml").MODEL.VIT.DEPTH == 8
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory, repository):
    """The folder that this repository is installed to, outside of it: by a wheel that was made of its sdist."""
    folder = tmp_path_factory.mktemp("installed")
    # Of a copy, as setuptools would leave a folder `build`, and take files from one of earlier.
    copy = folder / "repository"
    for name in ("configs", "projects"):
        shutil.copytree(repository / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py"):
        shutil.copy(repository / name, copy)
    make = "import setuptools.build_meta as backend; print(backend.build_sdist('..'))"
    name = call(sys.executable, "-c", make, cwd=copy).split()[-1]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    alone = ["--no-deps", "--no-index"]
    call(*pip, "wheel", *alone, "--no-build-isolation", "--wheel-dir", str(folder), str(folder / name))
    (wheel,) = folder.glob("*.whl")
    call(*pip, "install", *alone, "--target", str(folder / "site"), str(wheel))
    return folder / "site"


def call(*words: str, site: Path | None = None, cwd: Path | None = None) -> str:
    """Run a command that has to succeed without a word on standard error but for bars; returns what it says."""
    environment = {**os.environ, **({"PYTHONPATH": str(site), "TQDM_DISABLE": "1"} if site else {})}
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if site:
        assert done.stderr == ""
    return done.stdout


def test_installed_package_is_complete(tmp_path, installed):
    assert not (installed / "detectron2").exists()  # it would replace an installed Detectron2
    call(sys.executable, "-W", "ignore", "-c", CHECK.format(target=str(installed)), site=installed, cwd=tmp_path)


def test_the_command_outside_of_the_repository(tmp_path, installed, repository):
    command = str(installed / "bin" / "eventful-vitdet")
    assert call(command, "--help", site=installed, cwd=tmp_path).startswith("usage: eventful-vitdet COMMAND")
    assert "in the repository only" in call(command, "models", site=installed, cwd=tmp_path)
    encode(tmp_path / "street.mp4", count=3, b_frames=0)
    weights = str(repository / "weights" / "demo_vitdet_tiny.safetensors")
    model = ["--model", "demo/vitdet_tiny", "--weights", weights, "--no-window", "MODEL.DEVICE", "cpu"]
    shown = call(command, "predict", "street.mp4", *model, site=installed, cwd=tmp_path)
    assert "\nwriting street_detections.mp4\n" in shown and "street_detections.mp4: 3 frames" in shown
    assert probe_video(str(tmp_path / "street_detections.mp4")).num_frames == 3


def test_metadata(installed):
    (folder,) = installed.glob("eventful_vitdet-*.dist-info")
    metadata = email.message_from_string((folder / "METADATA").read_text(encoding="utf-8"))
    assert metadata["Version"] == eventful_vitdet.__version__ and metadata["Requires-Python"] == ">=3.9"
    assert metadata["License-Expression"] == "Apache-2.0" and (folder / "licenses" / "LICENSE").is_file()
    extras = {"docs", "live", "matlab", "test", "test-tools", "timm", "track", "transformers"}
    assert set(metadata.get_all("Provides-Extra")) == extras
    required = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert len(required) > 10 and sum("opencv" in line for line in required) == 1
