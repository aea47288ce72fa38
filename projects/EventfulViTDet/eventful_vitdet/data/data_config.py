"""Configuration keys of the data part that Detectron2 does not have."""

from __future__ import annotations

import os

from detectron2.config import CfgNode

MOST_WORKERS = 8
"""Unless a configuration asks for more; otherwise there are as many as cores that may be used."""


def add_data_config(cfg: CfgNode) -> None:
    """Add the keys below to `cfg`, in place. Detectron2's own keys keep their meaning."""
    # Range of a random factor on top of the size chosen by INPUT.MIN_SIZE_TRAIN; (1.0, 1.0): none.
    cfg.INPUT.SCALE_JITTER = (1.0, 1.0)
    # Height and width, in pixels, of the training crop taken after resizing; smaller frames are padded at the
    # bottom and on the right, so every training image has exactly this size. (0, 0): the whole frame.
    cfg.INPUT.CROP_PIXELS = (0, 0)
    # Probability that the crop is placed around a randomly chosen object instead of anywhere.
    cfg.INPUT.CROP_AROUND_OBJECT = 0.5
    # The scale is limited so that the object at the crop's centre takes at most this share of its sides; 0: no limit.
    cfg.INPUT.CROP_MAX_OBJECT_FILL = 0.0
    # A box of which less than this share of its area is inside the crop is dropped.
    cfg.INPUT.MIN_BOX_VISIBILITY = 0.3
    # Ranges of the random brightness and contrast factors in training; (1.0, 1.0): unchanged.
    cfg.INPUT.BRIGHTNESS = (1.0, 1.0)
    cfg.INPUT.CONTRAST = (1.0, 1.0)
    # Range of random factors, one for each colour channel; (1.0, 1.0): unchanged.
    cfg.INPUT.CHANNEL_GAIN = (1.0, 1.0)
    # COCO-VID files. Boxes that reach over the edge of their image by more than a pixel (as of MOT17): "clip" cuts them
    # off, "drop" leaves them out, "error" refuses the file. All are counted, the first ten named.
    cfg.DATASETS.BOXES_OVER_EDGE = "clip"
    # Boxes without width or height (as in VisDrone): "error" refuses the file, "drop" leaves them out.
    cfg.DATASETS.EMPTY_BOXES = "error"
    # The number that these files give to the first frame of a video file; 1 is subtracted from all frame numbers then.
    cfg.DATASETS.FIRST_FRAME_ID = 0
    # Let file names be absolute, or lead out of the data set's folder by "..".
    cfg.DATASETS.PATHS_OUTSIDE_ROOT = False
    # Processes that read training images, for each training process; 0: that process itself.
    cfg.DATALOADER.NUM_WORKERS = min(MOST_WORKERS, len(os.sched_getaffinity(0)))
    # Training uses every n-th listed frame of a video (neighbours hardly differ).
    cfg.DATALOADER.TRAIN_FRAME_STRIDE = 1
    # Of these, training uses this many of every video, evenly spaced (15 is usual for ImageNet VID); 0: all.
    cfg.DATALOADER.FRAMES_PER_VIDEO = 0
    # One positive number for each data set in DATASETS.TRAIN: the shares in which training draws from them, of any
    # sum. (): as listed, every frame of all of them equally often.
    cfg.DATALOADER.DATASET_RATIOS = ()
    # Draw a class first (scarce ones more often than they occur: by the square root of the number of their videos),
    # then one of its videos, then a frame. False: every frame equally often.
    cfg.DATALOADER.BALANCE_CLASSES = False
    # Folder for JPEG copies of the training frames, filled before training starts. Reading one takes about a
    # millisecond; decoding a frame in the middle of an mp4 takes some fifty. "": decode from the video.
    cfg.DATALOADER.FRAME_CACHE = ""
    # Frames that the evaluation's reader decodes ahead of the model. Memory is bounded by this number.
    cfg.DATALOADER.PREFETCH_FRAMES = 4
    # What to do about a video that cannot be used, in evaluation and in training: "stop" with an error that names it,
    # or "skip" the whole video and say so. Training only skips what is known to be bad before it starts.
    cfg.TEST.ON_BAD_VIDEO = "stop"
    cfg.DATALOADER.ON_BAD_VIDEO = "stop"
