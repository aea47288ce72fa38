"""
Video data: COCO-VID files, their registration, frame readers, the streaming test loader, the training mapper.
"""

from .coco_vid import load_coco_vid, split_sequences
from .data_config import add_data_config
from .frame_cache import FrameCache, extract_frames, thin_frames
from .mapper import VideoTrainMapper, build_video_train_loader
from .read_rules import ReadRules
from .registration import (
    dataset_folder,
    default_test_root,
    load_frames,
    register_builtin_datasets,
    register_coco_vid,
    register_paths,
    register_test_json,
)
from .video_data import BadVideo
from .video_test_loader import VideoTestLoader, build_video_test_loader

register_builtin_datasets()

__all__ = [
    "BadVideo",
    "FrameCache",
    "ReadRules",
    "VideoTestLoader",
    "VideoTrainMapper",
    "add_data_config",
    "build_video_test_loader",
    "build_video_train_loader",
    "dataset_folder",
    "default_test_root",
    "extract_frames",
    "load_coco_vid",
    "load_frames",
    "register_coco_vid",
    "register_paths",
    "register_test_json",
    "split_sequences",
    "thin_frames",
]
