"""Configuration keys of the data part that Detectron2 does not have."""

from __future__ import annotations

from detectron2.config import CfgNode

from ..usable_cores import usable_cores

MOST_WORKERS = 8
"""Unless a configuration asks for more; otherwise there are as many as cores that may be used."""


def add_data_config(cfg: CfgNode) -> None:
    """Add the keys below to `cfg`, in place. Detectron2's own keys keep their meaning."""
    # Training: range of a random factor on top of the size chosen by INPUT.MIN_SIZE_TRAIN; (1.0, 1.0): none.
    cfg.INPUT.SCALE_JITTER = (1.0, 1.0)
    # Training: height and width in pixels of the crop that is taken after resizing. Smaller frames are padded at the
    # bottom and on the right, so every training image has exactly this size. (0, 0): the whole frame.
    cfg.INPUT.CROP_PIXELS = (0, 0)
    # Training: probability that the crop is placed around a randomly chosen object instead of anywhere.
    cfg.INPUT.CROP_AROUND_OBJECT = 0.5
    # Training: largest share of the crop's sides that the object it is placed around may take; larger ones are scaled
    # down. 0: no limit.
    cfg.INPUT.CROP_MAX_OBJECT_FILL = 0.0
    # Training: boxes are dropped if less than this share of them is inside the crop.
    cfg.INPUT.MIN_BOX_VISIBILITY = 0.3
    # Training: range of a random brightness factor; (1.0, 1.0): unchanged.
    cfg.INPUT.BRIGHTNESS = (1.0, 1.0)
    # Training: range of a random contrast factor; (1.0, 1.0): unchanged.
    cfg.INPUT.CONTRAST = (1.0, 1.0)
    # Training: range of a random saturation factor, 0 is grey; (1.0, 1.0): unchanged.
    cfg.INPUT.SATURATION = (1.0, 1.0)
    # Training: range of random factors, one for each colour channel; (1.0, 1.0): unchanged.
    cfg.INPUT.CHANNEL_GAIN = (1.0, 1.0)
    # Training: probability that a frame's contrast and noise are raised together, by up to ten times, as an infrared
    # camera's automatic gain does before an even sky. 0: off.
    cfg.INPUT.AUTO_GAIN = 0.0
    # Training, copy-paste augmentation: paste up to two objects of other frames into each image, each with this
    # probability, rotated and with other contrast, and erase some of its own, so that a detector learns objects, not
    # scenes. For boxes on even backgrounds, such as skies. 0: off.
    cfg.INPUT.COPY_PASTE = 0.0
    # COCO-VID files: boxes that extend beyond their image by more than a pixel, as in MOT17. "clip" clips them and
    # drops those that are entirely outside, "drop" drops them, "error" refuses the file.
    cfg.DATASETS.BOXES_OVER_EDGE = "clip"
    # COCO-VID files: boxes without width or height, as in VisDrone. "error" refuses the file, "drop" drops them.
    cfg.DATASETS.EMPTY_BOXES = "error"
    # COCO-VID files: the number of a video file's first frame. With 1, every number is reduced by one.
    cfg.DATASETS.FIRST_FRAME_ID = 0
    # COCO-VID files: allow file names that are absolute, or that leave the data set's folder with "..".
    cfg.DATASETS.PATHS_OUTSIDE_ROOT = False
    # Processes that read training images, for each training process; 0: that process itself. The default is one for
    # each usable core, at most 8.
    cfg.DATALOADER.NUM_WORKERS = min(MOST_WORKERS, usable_cores())
    # Training uses every n-th listed frame of a video, since neighbours hardly differ.
    cfg.DATALOADER.TRAIN_FRAME_STRIDE = 1
    # Training uses this many of the frames that TRAIN_FRAME_STRIDE leaves of every video, evenly spaced (15 is usual
    # for ImageNet VID); 0: all.
    cfg.DATALOADER.FRAMES_PER_VIDEO = 0
    # Training: the shares in which images are drawn from the data sets, a positive number for each name in
    # DATASETS.TRAIN. (): every frame of all of them equally often.
    cfg.DATALOADER.DATASET_RATIOS = ()
    # Training: draw a class first (in proportion to the square root of the number of its videos, so that rare classes
    # are drawn more often), then one of its videos, then a frame. With DATASET_RATIOS, within each data set. False:
    # every frame equally often.
    cfg.DATALOADER.BALANCE_CLASSES = False
    # Training of detectors with gates on: how many frames come before each training frame, as in video. The first one
    # is computed in full; after it, tokens pass gates by the policy of MODEL.EVENTFUL. Losses are those of
    # the training frame. 0 trains densely, on single frames.
    cfg.DATALOADER.EARLIER_FRAMES = 0
    # Training: folder for JPEG copies of the frames of video files, filled before training starts. Reading one takes
    # about a millisecond; decoding a frame in the middle of an mp4 takes about fifty. "": decode from the video.
    cfg.DATALOADER.FRAME_CACHE = ""
    # Training on clips: megabytes of memory for decoded clips, so that each is read once; 0: read them every time. Each
    # reader of NUM_WORKERS has this much memory of its own.
    cfg.DATALOADER.CLIP_MEMORY_MB = 0
    # Training with MODEL.VIVIT.FREEZE_SPATIAL: cache folder for the spatial model's features, computed only once.
    # "": compute them in every iteration.
    cfg.DATALOADER.FEATURE_CACHE = ""
    # Frames that an evaluation decodes ahead of the model, for each stream. It bounds the reader's memory.
    cfg.DATALOADER.PREFETCH_FRAMES = 4
    # Evaluation, a video that cannot be read: "stop" with an error that names it, or "skip" it with a warning.
    cfg.TEST.ON_BAD_VIDEO = "stop"
    # Training, a video that cannot be read: "stop" with an error that names it, or "skip" the videos that are known to
    # be bad before training starts.
    cfg.DATALOADER.ON_BAD_VIDEO = "stop"
