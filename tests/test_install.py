"""`pip install .` (not editable) gives a package that finds its configurations and the embedded Detectron2."""

import os
import subprocess
import sys

CHECK = """
from pathlib import Path
import eventful_vitdet
package = Path(eventful_vitdet.__file__).parent
assert str(package).startswith({target!r}), package
assert (package / "embedded" / "detectron2" / "modeling" / "__init__.py").is_file()
assert (package / "live" / "page" / "index.html").is_file()
assert (package / "report" / "page.css").is_file()
assert (package / "class_lists" / "coco.txt").is_file()
import detectron2
from eventful_vitdet.cli.command_line import build_cfg, find_config
import eventful_vitdet.modeling
assert str(find_config("imagenet_vid/vitdet_b_672.yaml")).startswith({target!r})
assert build_cfg("lvis/mask_rcnn_vitdet_l.yaml").MODEL.VIT.DEPTH == 24
assert build_cfg("airborne_vid/vitdet_small.yaml").MODEL.VIT.DEPTH == 8
"""


def test_installed_package_is_complete(tmp_path, repository):
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--target", str(target), str(repository)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (target / "detectron2").exists()  # it would replace an installed Detectron2
    environment = {**os.environ, "PYTHONPATH": str(target)}
    check = CHECK.format(target=str(target))
    done = subprocess.run([sys.executable, "-c", check], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
