"""Small trees of ImageNet VID, as they lie on the disks of their owners."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from eventful_vitdet.data.builtin import IMAGENET_VID_WNIDS

WIDTH, HEIGHT = 48, 36


def write_jpeg(path: Path, number: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), np.uint8)
    cv2.imwrite(str(path), cv2.GaussianBlur(noise, (0, 0), 2))
    return path


def xml_object(name: str, corners: tuple, track: int | None = 0, occluded: int = 0, generated: int = 1) -> str:
    """An object of an XML file, in ImageNet's own order of elements; corners are xmin, ymin, xmax, ymax."""
    x0, y0, x1, y1 = corners
    identity = "" if track is None else f"<trackid>{track}</trackid>"
    box = f"<bndbox><xmax>{x1}</xmax><xmin>{x0}</xmin><ymax>{y1}</ymax><ymin>{y0}</ymin></bndbox>"
    flags = "" if track is None else f"<occluded>{occluded}</occluded><generated>{generated}</generated>"
    return f"<object>{identity}<name>{IMAGENET_VID_WNIDS.get(name, name)}</name>{box}{flags}</object>"


def xml_text(*objects: str, size: str = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>") -> str:
    source = "<source><database>ILSVRC_2015</database></source>"
    return f"<annotation><folder>f</folder><filename>n</filename>{source}{size}{''.join(objects)}</annotation>\n"


class Tree:
    """A folder ILSVRC2015, filled by the methods below."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def xml(self, kind: str, stem: str) -> Path:
        return self.root / "Annotations" / kind / f"{stem}.xml"

    def image(self, kind: str, stem: str) -> Path:
        return self.root / "Data" / kind / f"{stem}.JPEG"

    def add(self, kind: str, stem: str, *objects: str) -> None:
        """An image and its XML file."""
        self.xml(kind, stem).parent.mkdir(parents=True, exist_ok=True)
        self.xml(kind, stem).write_text(xml_text(*objects))
        write_jpeg(self.image(kind, stem), sum(map(ord, stem)))

    def add_video(self, name: str, frames: int) -> None:
        """A car that drives to the right, and, in odd frames, a dog that is hidden; the last frame is empty."""
        for i in range(frames):
            objects = [xml_object("car", (i, 4, i + 10, 12), track=0, generated=i % 2)]
            if i % 2:
                objects.append(xml_object("dog", (5, 10, 40, 36), track=1, occluded=1))
            self.add("VID", f"{name}/{i:06d}", *(objects if i < frames - 1 else []))

    def write_list(self, name: str, *lines: str, folder: str = "ImageSets/VID") -> Path:
        path = self.root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))
        return path


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Tree:
    """The folder that the registered data sets read."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user_cache"))
    return Tree(tmp_path / "ILSVRC2015")


@pytest.fixture
def full_tree(tree) -> Tree:
    """Validation: videos of 5 and 3 frames. Training: two videos, of which some frames are listed. DET: two images."""
    tree.add_video("val/ILSVRC2015_val_00000000", 5)
    tree.add_video("val/ILSVRC2015_val_00007010", 3)
    videos = ("val/ILSVRC2015_val_00000000 1 0 5", "val/ILSVRC2015_val_00007010 6 0 3")
    tree.write_list("VID_val_videos.txt", *videos)
    for number, frames in ((0, 6), (1, 4)):
        tree.add_video(f"train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_0000000{number}", frames)
    first, second = (f"train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_0000000{i}" for i in (0, 1))
    tree.write_list("VID_train_15frames.txt", f"{first} 1 1 6", f"{first} 1 3 6", f"{first} 1 5 6", f"{second} 1 2 4")
    dog, other = xml_object("dog", (1, 2, 9, 8), track=None), xml_object("n07739125", (3, 3, 20, 20), track=None)
    tree.add("DET", "train/ILSVRC2013_train/n02084071/n02084071_10", dog, other)
    tree.add("DET", "train/ILSVRC2014_train_0006/ILSVRC2014_train_00060036", other)
    stems = ("ILSVRC2013_train/n02084071/n02084071_10", "ILSVRC2014_train_0006/ILSVRC2014_train_00060036")
    tree.write_list("DET_train_30classes.txt", *(f"train/{stem} 1" for stem in stems))
    return tree
