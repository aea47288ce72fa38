"""Training on single frames: the mapper from a frame's dict to the model's input, and its loader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import build_detection_train_loader
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BoxMode, Instances
from detectron2.utils import comm
from fvcore.transforms.transform import TransformList

from ..errors import ConfigError
from .copy_paste import CopyPaste
from .earlier_frames import EARLIER, all_frames
from .frame_cache import FrameCache, extract_frames
from .input_preparation import check_image_format
from .listed_frames import read_listed_frame
from .training_frames import load_train_sets
from .training_masks import check_masks, transform_masks
from .training_sampler import MixedSampler
from .training_transforms import AutoGain, ChannelGain, RandomSaturation, RandomWindow

MIN_BOX_PIXELS = 1.0


class VideoTrainMapper:
    """Reads the frame that a dict names, augments it and its boxes, and makes the model's training input."""

    @configurable
    def __init__(
        self,
        *,
        augmentations: Sequence[T.Augmentation],
        image_format: str,
        min_visibility: float = 0.0,
        frame_cache: str = "",
        masks: bool = False,
        copy_paste: CopyPaste | None = None,
    ) -> None:
        """Set the mapper up without a configuration.

        Args:
            augmentations: applied in order to images in `image_format`, "RGB" or "BGR".
            min_visibility: a box with a smaller share of its area left in the image is dropped.
            frame_cache: folder of a FrameCache; "" decodes from the video each time.
            masks: objects have one, for a model that learns them.
            copy_paste: carries objects of other frames to each image.
        """
        check_image_format(image_format)
        self.augmentations = T.AugmentationList(list(augmentations))
        self.image_format = image_format
        self.min_visibility = min_visibility
        self.masks = masks
        self.copy_paste = copy_paste
        self._read = frame_reader(frame_cache)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Take all arguments from INPUT.*, DATALOADER.FRAME_CACHE and MODEL.MASK_ON."""
        return {
            "augmentations": build_train_augmentations(cfg),
            "image_format": cfg.INPUT.FORMAT,
            "min_visibility": cfg.INPUT.MIN_BOX_VISIBILITY,
            "frame_cache": cfg.DATALOADER.FRAME_CACHE,
            "masks": cfg.MODEL.MASK_ON,
        }

    def __call__(self, frame: dict) -> dict:
        """Return "image" (a uint8 tensor (3, H, W)), "instances" (gt_boxes, gt_classes, and gt_masks where
        they are asked for) and the frame's identity; with the frames before it (earlier_frames.py), augmented alike,
        their images as a list, "earlier".

        Raises VideoReadError if the frame cannot be read.
        """
        image, annotations = self._read(frame), frame["annotations"]
        if self.copy_paste is not None:
            image, annotations = self.copy_paste(frame, image)
        image = self._in_order(image)
        annotations = [a for a in annotations if not a.get("iscrowd", 0)]
        boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
        aug_input = T.AugInput(image, boxes=np.asarray(boxes, dtype=np.float64).reshape(-1, 4))
        transforms = self.augmentations(aug_input)
        earlier = [transforms.apply_image(self._in_order(self._read(before))) for before in frame.get(EARLIER, ())]
        identity = ("file_name", "height", "width", "image_id", "video_id", "frame_id")
        return {
            **{key: frame[key] for key in identity},
            "image": _as_tensor(aug_input.image),
            **({EARLIER: [_as_tensor(before) for before in earlier]} if earlier else {}),
            "instances": self._make_instances(frame, annotations, aug_input, transforms),
        }

    def _in_order(self, image: np.ndarray) -> np.ndarray:
        """An image in BGR with its channels as the model has them."""
        return np.ascontiguousarray(image[:, :, ::-1]) if self.image_format == "RGB" else image

    def _make_instances(
        self, frame: dict, annotations: list[dict], augmented: T.AugInput, transforms: TransformList
    ) -> Instances:
        height, width = augmented.image.shape[:2]
        boxes = augmented.boxes
        clipped = np.clip(boxes, 0, (width, height, width, height))
        sides = clipped[:, 2:] - clipped[:, :2]
        full_area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        keep = (sides.prod(axis=1) >= self.min_visibility * full_area) & (sides >= MIN_BOX_PIXELS).all(axis=1)
        kept = [
            {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": annotation["category_id"]}
            for annotation, box, visible in zip(annotations, clipped, keep)
            if visible
        ]
        target = utils.annotations_to_instances(kept, (height, width))
        if self.masks and kept:
            shown = [annotation["segmentation"] for annotation, visible in zip(annotations, keep) if visible]
            target.gt_masks = transform_masks(shown, transforms, frame)
        return target


def frame_reader(cache: str) -> Callable[[dict], np.ndarray]:
    """What reads a frame as BGR (H, W, 3): from the FrameCache in a folder, or, of "", from where the data set has
    it."""
    return FrameCache(cache).read if cache else read_listed_frame


def _as_tensor(image: np.ndarray) -> torch.Tensor:
    """(H, W, 3) as (3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def build_train_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """The training augmentations that INPUT.* asks for, in the order of application."""
    augmentations: list[T.Augmentation] = []
    if cfg.INPUT.RANDOM_FLIP not in ("none", "horizontal", "vertical"):
        raise ConfigError(f"INPUT.RANDOM_FLIP must be none, horizontal or vertical, found {cfg.INPUT.RANDOM_FLIP!r}")
    if cfg.INPUT.RANDOM_FLIP != "none":
        # First, so that padding lies at the bottom and on the right, where inference has it.
        vertical = cfg.INPUT.RANDOM_FLIP == "vertical"
        augmentations.append(T.RandomFlip(horizontal=not vertical, vertical=vertical))
    if cfg.INPUT.AUTO_GAIN:
        augmentations.append(AutoGain(cfg.INPUT.AUTO_GAIN))
    augmentations.append(
        RandomWindow(
            cfg.INPUT.MIN_SIZE_TRAIN,
            cfg.INPUT.MAX_SIZE_TRAIN,
            sampling=cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING,
            jitter=cfg.INPUT.SCALE_JITTER,
            crop_size=cfg.INPUT.CROP_PIXELS,
            around_object=cfg.INPUT.CROP_AROUND_OBJECT,
            max_object_fill=cfg.INPUT.CROP_MAX_OBJECT_FILL,
            pad_value=round(float(np.mean(cfg.MODEL.PIXEL_MEAN))),
        )
    )
    if tuple(cfg.INPUT.BRIGHTNESS) != (1.0, 1.0):
        augmentations.append(T.RandomBrightness(*cfg.INPUT.BRIGHTNESS))
    if tuple(cfg.INPUT.CONTRAST) != (1.0, 1.0):
        augmentations.append(T.RandomContrast(*cfg.INPUT.CONTRAST))
    if tuple(cfg.INPUT.SATURATION) != (1.0, 1.0):
        augmentations.append(RandomSaturation(*cfg.INPUT.SATURATION, cfg.INPUT.FORMAT))
    if tuple(cfg.INPUT.CHANNEL_GAIN) != (1.0, 1.0):
        augmentations.append(ChannelGain(*cfg.INPUT.CHANNEL_GAIN))
    return augmentations


def check_copy_paste(cfg: CfgNode) -> None:
    """Raise ConfigError for INPUT.COPY_PASTE out of range, or where objects cannot be carried to other frames."""
    if not 0 <= cfg.INPUT.COPY_PASTE <= 1:
        raise ConfigError(f"INPUT.COPY_PASTE must be from 0 to 1, found {cfg.INPUT.COPY_PASTE}")
    others = {"MODEL.MASK_ON": cfg.MODEL.MASK_ON, "DATALOADER.EARLIER_FRAMES": cfg.DATALOADER.EARLIER_FRAMES}
    for key, is_on in others.items():
        if cfg.INPUT.COPY_PASTE and is_on:
            raise ConfigError(f"INPUT.COPY_PASTE is for boxes in single frames, and cannot be combined with {key}")


class ResumableSampler(Protocol):
    """Gives a resumed training another stream than the one before."""

    images_before: int
    """How many images, or clips, earlier runs have drawn, in all processes together."""


class VideoTrainLoader:
    """An endless stream of batches, each a list of inputs of the model: of single frames, as `VideoTrainMapper` makes
    them, or of clips."""

    def __init__(self, batches: Iterable[list[dict]], sampler: ResumableSampler) -> None:
        self.batches = batches
        self._sampler = sampler

    def continue_after(self, images: int) -> None:
        """Before the first batch: say how many images or clips, over all processes, earlier runs of this training have
        seen."""
        self._sampler.images_before = images

    def __iter__(self) -> Iterator[list[dict]]:
        return iter(self.batches)


def build_video_train_loader(cfg: CfgNode) -> VideoTrainLoader:
    """The loader over single frames of the videos and images in DATASETS.TRAIN, mixed by DATALOADER.DATASET_RATIOS.

    Fills DATALOADER.FRAME_CACHE first where it is set. Raises DatasetError if no frame is left to train on, ConfigError
    for ratios that do not fit the data sets.
    """
    sets = load_train_sets(cfg)
    if cfg.MODEL.MASK_ON:
        check_masks(cfg.DATASETS.TRAIN, sets)
    check_copy_paste(cfg)
    settings = cfg.DATALOADER
    sampler = MixedSampler(
        sets, tuple(settings.DATASET_RATIOS), balance_classes=settings.BALANCE_CLASSES, seed=cfg.SEED
    )
    if settings.FRAME_CACHE:
        if comm.is_main_process():
            for frames in sets:
                extract_frames(all_frames(frames), settings.FRAME_CACHE)
        comm.synchronize()
    frames = [frame for of_set in sets for frame in of_set]
    copy_paste = None
    if cfg.INPUT.COPY_PASTE:
        reader = frame_reader(settings.FRAME_CACHE)
        copy_paste = CopyPaste(sets, reader, cfg.INPUT.COPY_PASTE, tuple(settings.DATASET_RATIOS))
    mapper = VideoTrainMapper(cfg, copy_paste=copy_paste)
    batches = build_detection_train_loader(cfg, mapper=mapper, dataset=frames, sampler=sampler)
    return VideoTrainLoader(batches, sampler)
