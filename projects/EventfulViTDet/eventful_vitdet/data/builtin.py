"""Data sets known by name: their classes and where they lie under DETECTRON2_DATASETS."""

from __future__ import annotations

AIRBORNE_CLASSES = ["airplane", "bird", "drone", "helicopter"]
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
IMAGENET_VID_FOLDER = "ILSVRC2015"
IMAGENET_VID_ARCHIVE_FOLDER = "vid_data"

# name: (folder, annotation file inside it, classes)
BUILTIN_COCO_VID = {
    "airborne_vid_train": ("airborne_vid", "annotations/train.json", AIRBORNE_CLASSES),
    "airborne_vid_train_more": ("airborne_vid", "annotations/train_more.json", AIRBORNE_CLASSES),
    "airborne_vid_val": ("airborne_vid", "annotations/val.json", AIRBORNE_CLASSES),
    "airborne_ir_train": ("airborne_ir", "annotations/train.json", AIRBORNE_CLASSES),
    "airborne_ir_val": ("airborne_ir", "annotations/val.json", AIRBORNE_CLASSES),
    "airborne_drawn_train": ("airborne_drawn", "annotations/train.json", AIRBORNE_CLASSES),
    "airborne_models_train": ("airborne_models", "annotations/train.json", AIRBORNE_CLASSES),
    "airborne_photos_train": ("airborne_photos", "annotations/train.json", AIRBORNE_CLASSES),
    "demo_vid_train": ("demo_vid", "annotations/train.json", DEMO_VID_CLASSES),
    "demo_vid_test": ("demo_vid", "annotations/test.json", DEMO_VID_CLASSES),
}

# What complete data sets hold: published numbers of ImageNet VID, those of the airborne sets' own annotation files.
KNOWN_TOTALS = {
    "imagenet_vid_val": {
        "videos": 555,
        "frames": 176_126,
        "frames with objects": 172_080,
        "frames without objects": 4_046,
        "boxes": 273_505,
    },
    "imagenet_vid_train": {"videos": 3_862, "frames": 57_834},
    "imagenet_vid_train_all": {"videos": 3_862},
    "imagenet_det_30_train": {"videos": 53_639, "frames": 53_639},
    "airborne_vid_train": {"videos": 93, "frames": 29_230, "boxes": 29_229},
    "airborne_vid_train_more": {"videos": 74, "frames": 23_082, "boxes": 25_910},
    "airborne_vid_val": {"videos": 24, "frames": 7_501, "boxes": 7_501},
    "airborne_ir_train": {"videos": 204, "frames": 63_827, "boxes": 66_881},
    "airborne_ir_val": {"videos": 80, "frames": 24_902, "boxes": 25_208},
}
