"""Data sets known by name: their classes and where they lie under DETECTRON2_DATASETS."""

from __future__ import annotations

AIRBORNE_VID_CLASSES = ["airplane", "bird", "drone", "helicopter"]
DEMO_VID_CLASSES = ["disc", "square", "triangle", "star", "ring", "cross"]

# ImageNet VID, in the order of its category ids 1 to 30.
IMAGENET_VID_WNIDS = {
    "airplane": "n02691156",
    "antelope": "n02419796",
    "bear": "n02131653",
    "bicycle": "n02834778",
    "bird": "n01503061",
    "bus": "n02924116",
    "car": "n02958343",
    "cattle": "n02402425",
    "dog": "n02084071",
    "domestic_cat": "n02121808",
    "elephant": "n02503517",
    "fox": "n02118333",
    "giant_panda": "n02510455",
    "hamster": "n02342885",
    "horse": "n02374451",
    "lion": "n02129165",
    "lizard": "n01674464",
    "monkey": "n02484322",
    "motorcycle": "n03790512",
    "rabbit": "n02324045",
    "red_panda": "n02509815",
    "sheep": "n02411705",
    "snake": "n01726692",
    "squirrel": "n02355227",
    "tiger": "n02129604",
    "train": "n04468005",
    "turtle": "n01662784",
    "watercraft": "n04530566",
    "whale": "n02062744",
    "zebra": "n02391049",
}
IMAGENET_VID_NAMES = ("imagenet_vid_train", "imagenet_vid_val")

# name: (folder, annotation file inside it, classes)
BUILTIN_COCO_VID = {
    "airborne_vid_train": ("airborne_vid", "annotations/train.json", AIRBORNE_VID_CLASSES),
    "airborne_vid_val": ("airborne_vid", "annotations/val.json", AIRBORNE_VID_CLASSES),
    "demo_vid_train": ("demo_vid", "annotations/train.json", DEMO_VID_CLASSES),
    "demo_vid_test": ("demo_vid", "annotations/test.json", DEMO_VID_CLASSES),
}
