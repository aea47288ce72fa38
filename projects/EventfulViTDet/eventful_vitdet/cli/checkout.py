"""What commands take from a checkout of the repository: committed weights, and the demo's videos."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from ..errors import FileError
from ..known_models import CHECKOUT


def checkout_file(name: str) -> Path:
    """A file of the repository by its path in there. Raises FileError where there is no checkout."""
    path = CHECKOUT / name
    if not path.is_file():
        raise FileError(f"{name} is not part of the installed package; run this command in a checkout")
    return path


def how_to_install(extra: str) -> str:
    """The pip command for one of the package's extras, as it works where the package is."""
    if not (CHECKOUT / "setup.py").is_file():
        return f"pip install 'eventful-vitdet[{extra}]'"
    here = os.path.relpath(CHECKOUT)
    here = here if here.startswith(".") else os.path.join(".", here)  # else pip would take it for a package's name
    return f"pip install {shlex.quote(f'{here}[{extra}]')}"


def render_demo_videos() -> Path:
    """Render the demo's test videos, if they are not there, and return the folder of the data set."""
    return _render("demo_vid", "datasets/render_synthetic_vid.py")


def render_demo_actions() -> Path:
    """Render the test videos of the actions, if they are not there, and return the folder of the data set."""
    return _render("synthetic_actions", "datasets/render_synthetic_actions.py")


def _render(name: str, script_name: str) -> Path:
    from ..data import dataset_folder

    folder = dataset_folder(name)
    script = checkout_file(script_name)
    if subprocess.run([sys.executable, str(script), "--output", folder, "--split", "test"]).returncode:
        raise FileError(f"the test videos could not be rendered to {folder}")
    return Path(folder)
