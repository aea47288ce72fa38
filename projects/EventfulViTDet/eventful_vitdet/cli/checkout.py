"""What commands take from a checkout of the repository: committed weights, and the demo's videos."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ..data import dataset_folder

REPOSITORY = Path(__file__).parent.joinpath("..", "..", "..", "..").resolve()
"""The checkout that this package lies in. Of an installed package, a folder without any of these files."""


def checkout_file(name: str) -> Path:
    """A file of the repository by its path in there. Raises FileNotFoundError where there is no checkout."""
    path = REPOSITORY / name
    if not path.is_file():
        raise FileNotFoundError(f"{name} is not part of the installed package; run this command in a checkout")
    return path


def render_demo_videos() -> Path:
    """Render the demo's test videos, if they are not there, and return the folder of the data set."""
    folder = dataset_folder("demo_vid")
    script = checkout_file("datasets/render_synthetic_vid.py")
    if subprocess.run([sys.executable, str(script), "--output", folder, "--split", "test"]).returncode:
        raise OSError(f"the test videos could not be rendered to {folder}")
    return Path(folder)
