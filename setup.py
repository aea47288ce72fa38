"""Installs the package `eventful_vitdet`, with its configurations and the embedded part of Detectron2 inside it."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
PROJECT = "projects/EventfulViTDet"
VERSION = re.search(r'__version__ = "(.*)"', (ROOT / PROJECT / "eventful_vitdet" / "__init__.py").read_text()).group(1)
DOCS = [f"{name}; python_version >= '3.11'" for name in ("furo>=2025.12.19", "myst-parser>=5", "sphinx>=9")]
LIVE = ["fastapi>=0.110", "uvicorn>=0.29", "websockets>=12"]
# Reads the labels that datasets/prepare_airborne.py converts.
MATLAB = ["mat-io>=1.0.2; python_version >= '3.11'"]
TIMM = ["timm>=1.0.31"]
# What `trackers` needs; itself it is installed by --no-deps, see eventful_vitdet/identities.py.
TRACK = [
    "pydeprecate>=0.9; python_version >= '3.10'",
    "rich>=13; python_version >= '3.10'",
    "scipy>=1.13; python_version >= '3.10'",
    "supervision>=0.31; python_version >= '3.10'",
]
TRANSFORMERS = ["transformers>=5.24"]


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
    name="eventful-vitdet",
    version=VERSION,
    description="Video object detection with eventful ViTDet: recompute only the tokens that changed",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.9",
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
    entry_points={"console_scripts": ["eventful-vitdet = eventful_vitdet.cli.main_door:door.open"]},
    install_requires=[
        "av>=15",
        "filelock>=3.12",
        "fvcore>=0.1.5.post20221221",
        "Jinja2>=3.1",
        "matplotlib>=3.5",
        "numpy>=1.22",
        "opencv-python-headless>=5",
        "Pillow>=9.0",
        "pycocotools>=2.0.6",
        "safetensors>=0.4",
        "tensorboard>=2.8",
        "torch>=2.8",
        "torchvision>=0.23",
        "tqdm>=4.66",
    ],
    extras_require={
        "docs": DOCS,
        "live": LIVE,
        "matlab": MATLAB,
        "timm": TIMM,
        "track": TRACK,
        "transformers": TRANSFORMERS,
        "test": [
            *DOCS,
            *LIVE,
            *TIMM,
            *TRACK,
            *TRANSFORMERS,
            "hypothesis>=6",
            "ipykernel>=6.29",
            "nbclient>=0.10",
            "nbformat>=5.10",
            "pytest>=7",
            "ruff>=0.6",
            "selenium>=4.15",
            "setuptools>=70.1",
        ],
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
