"""A tiny detector, trained from nothing on rendered videos and stills mixed at a set ratio, finds objects."""

import json

import pytest
from eventful_vitdet.cli.train_command import main

SETTINGS = {
    "MODEL.DEVICE": "cpu",
    "MODEL.VIT.IMG_SIZE_HW": "[128,128]",
    "MODEL.VIT.EMBED_DIM": "64",
    "MODEL.VIT.DEPTH": "3",
    "MODEL.VIT.WINDOW_BLOCKS": "[0,1]",
    "MODEL.SIMPLE_PYRAMID.OUT_CHANNELS": "32",
    "MODEL.ROI_BOX_HEAD.FC_DIM": "128",
    "MODEL.EVENTFUL.ENABLED": "False",
    "DATALOADER.DATASET_RATIOS": "[1,2]",
    "DATALOADER.FRAMES_PER_VIDEO": "3",
    "DATALOADER.FRAME_CACHE": "",
    "INPUT.MIN_SIZE_TRAIN": "[128]",
    "INPUT.MAX_SIZE_TRAIN": "128",
    "INPUT.SCALE_JITTER": "[0.5,2.0]",
    "INPUT.CROP_PIXELS": "[128,128]",
    "SOLVER.LAYER_DECAY": "0.9",
    "SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR",
    "SOLVER.STEPS": "(400,)",
    "SOLVER.WARMUP_ITERS": "20",
    "SOLVER.MAX_ITER": "500",
    "SOLVER.EMA_DECAY": "0.98",
    "TEST.EVAL_PERIOD": "0",
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory, render_videos):
    """A folder with rendered training and test videos, and a file that lists one still of every training video."""
    folder = tmp_path_factory.mktemp("rendered")
    for split, videos, frames in (("train", 96, 4), ("test", 6, 6)):
        render_videos(folder, split, videos, frames, "--size", "128x128")
    document = json.loads((folder / "annotations" / "train.json").read_text())
    document["images"] = [image for image in document["images"] if image["frame_id"] == 0]
    kept = {image["id"] for image in document["images"]}
    document["annotations"] = [box for box in document["annotations"] if box["image_id"] in kept]
    (folder / "annotations" / "stills.json").write_text(json.dumps(document))
    return folder / "annotations"


@pytest.mark.long
def test_loss_falls_and_objects_are_found(repository, tmp_path, videos):
    options = {**SETTINGS, "DATASETS.TRAIN": str((str(videos / "stills.json"), str(videos / "train.json")))}
    pairs = [word for pair in options.items() for word in pair]
    config = str(repository / "configs" / "demo" / "vitdet_tiny.yaml")
    words = ["--config-file", config, "--test-json", str(videos / "test.json"), *pairs, "OUTPUT_DIR", str(tmp_path)]
    assert main(words) == 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    losses = [line["total_loss"] for line in lines if "total_loss" in line]
    assert losses[-1] < 0.6 * losses[0]
    results = json.loads((tmp_path / "inference" / "results.json").read_text())
    # With random weights it is below 1.
    assert results["bbox"]["AP50"] > 10
