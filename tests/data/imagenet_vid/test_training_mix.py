"""Stills of ImageNet DET and frames of ImageNet VID in one training, from the official folders."""

from eventful_vitdet.config_files import build_cfg
from eventful_vitdet.data import build_video_train_loader


def test_the_recipes_data_sets_mix(full_tree):
    options = ["DATALOADER.NUM_WORKERS", "0", "INPUT.CROP_PIXELS", "[32, 32]", "SOLVER.IMS_PER_BATCH", "4"]
    cfg = build_cfg("imagenet_vid/vitdet_b_1024_from_coco.yaml", [*options, "MODEL.DEVICE", "cpu"])
    loader = iter(build_video_train_loader(cfg))
    names = [image["file_name"].replace(str(full_tree.root), "") for _ in range(30) for image in next(loader)]
    stills = {name for name in names if name.startswith("/Data/DET/")}
    # The second still shows none of the 30 classes; one of the four listed frames is empty.
    assert stills == {"/Data/DET/train/ILSVRC2013_train/n02084071/n02084071_10.JPEG"}
    assert 30 < sum(name in stills for name in names) < 90  # half of 120, five and a half standard deviations
    assert len(set(names) - stills) == 3
