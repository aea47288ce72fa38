"""What of the package has to be computed: its version, and its folders, with the configurations and the embedded part
of Detectron2 inside. All else is in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
PROJECT = "projects/EventfulViTDet"
VERSION = re.search(r'__version__ = "(.*)"', (ROOT / PROJECT / "eventful_vitdet" / "__init__.py").read_text()).group(1)


def embedded_packages() -> list:
    """The embedded part keeps its own folder below the package, where it cannot replace an installed Detectron2."""
    inside = find_packages(f"{PROJECT}/embedded")
    return ["eventful_vitdet.embedded"] + [f"eventful_vitdet.embedded.{name}" for name in inside]


def config_packages() -> list:
    """configs/ and its folders, as packages that hold nothing but yaml files."""
    folders = [path for path in (ROOT / "configs").rglob("*") if path.is_dir()]
    inside = [".".join(path.relative_to(ROOT / "configs").parts) for path in folders]
    return ["eventful_vitdet.configs"] + [f"eventful_vitdet.configs.{name}" for name in inside]


setup(
    version=VERSION,
    packages=find_packages(PROJECT, include=["eventful_vit*"]) + embedded_packages() + config_packages(),
    package_dir={
        "eventful_vit": f"{PROJECT}/eventful_vit",
        "eventful_vitdet": f"{PROJECT}/eventful_vitdet",
        "eventful_vitdet.embedded": f"{PROJECT}/embedded",
        "eventful_vitdet.configs": "configs",
    },
    package_data={
        "eventful_vit": ["py.typed"],
        "eventful_vit.ops.cpu": ["*.cpp", "*.h"],
        "eventful_vitdet": ["py.typed"],
        **{name: ["*.yaml"] for name in config_packages()},
        "eventful_vitdet.class_lists": ["*.txt"],
        "eventful_vitdet.live": ["page/*"],
        "eventful_vitdet.report": ["templates/*"],
    },
)
