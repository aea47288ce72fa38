"""Features of the spatial model, kept in files: the temporal model is trained on them without running it again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Sequence

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch.utils.data import Dataset
from tqdm import tqdm

from ..errors import DataError, describe_error
from ..evaluation.fingerprint import hash_weights
from ..files import file_identity, open_atomically
from ..modeling.video_classifier import VideoClassifier
from .clip import Clip
from .clip_loader import load_clips

EVENTFUL_KEYS = ("ATTENTION", "GATE_BEFORE_NORM", "GATE_REFERENCE", "COMPUTE_DTYPE", "STATE_DTYPE")
UNREADABLE = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile)

logger = logging.getLogger(__name__)


class KeptFeatures(Dataset):
    """The features of clips: inputs of a VideoClassifier that run its temporal model only."""

    def __init__(self, clips: Sequence[Clip], folder: str) -> None:
        self.clips = list(clips)
        self.folder = folder

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict:
        """Raises DataError for a file that is not there, or damaged, and for a clip whose video is not there."""
        clip = self.clips[index]
        path = feature_path(self.folder, clip)
        try:
            with np.load(path, allow_pickle=False) as file:
                features = torch.from_numpy(file["spatial"])
        except UNREADABLE as error:
            raise DataError(f"{path}: cannot be read ({error}); delete it to have it made again") from error
        return {"clip_id": clip.clip_id, "features": features, "labels": dict(clip.labels)}


def feature_path(folder: str, clip: Clip) -> str:
    """The file of a clip's features: another one when its video has changed. Raises DataError if that is not there."""
    try:
        source = file_identity(clip.path)
    except OSError as error:
        raise DataError(f"{clip.place}: clip {clip.clip_id}: {describe_error(error)}") from error
    content = json.dumps([*source, clip.clip_id, clip.start, clip.stop])
    name = hashlib.blake2b(content.encode(), digest_size=12).hexdigest()
    return os.path.join(folder, name[:2], f"{name}.npz")


def feature_folder(cfg: CfgNode, model: VideoClassifier) -> str:
    """The folder of features of this spatial model at its policy: another one has another folder."""
    settings = [
        *(hash_weights(part) for part in (model.vivit.embedding, model.vivit.spatial)),
        cfg.MODEL.VIT.NUM_HEADS,
        {key: str(cfg.MODEL.EVENTFUL[key]) for key in EVENTFUL_KEYS},
        [str(model.views), cfg.MODEL.VIVIT.FPS],
        str(model.vivit.policy),
        model.enabled,
    ]
    name = hashlib.blake2b(json.dumps(settings).encode(), digest_size=8).hexdigest()
    return os.path.join(cfg.DATALOADER.FEATURE_CACHE, name)


def fill_feature_cache(cfg: CfgNode, model: VideoClassifier, clips: Sequence[Clip]) -> KeptFeatures:
    """Compute the features of clips that have none yet, shared out over the processes; an interrupted call resumes.

    Raises DataError for clips that cannot be read.
    """
    folder = feature_folder(cfg, model)
    missing = [clip for clip in clips if not os.path.isfile(feature_path(folder, clip))]
    comm.synchronize()  # all have looked before anybody writes
    share = missing[comm.get_rank() :: comm.get_world_size()]
    if missing and comm.is_main_process():
        logger.info("%s: features of %d of %d clips are to be computed", folder, len(missing), len(clips))
    was_training = model.training
    model.eval()
    try:
        with tqdm(total=len(share), desc="features", unit="clip", disable=not comm.is_main_process()) as progress:
            for clip, frames in zip(share, load_clips(cfg, share, model.views)):
                if "error" in frames:
                    raise DataError(frames["error"])
                _write(feature_path(folder, clip), model, frames)
                progress.update()
    finally:
        model.train(was_training)
    comm.synchronize()
    return KeptFeatures(clips, folder)


@torch.no_grad()
def _write(path: str, model: VideoClassifier, frames: dict) -> None:
    [features] = model.features([frames])
    with open_atomically(path) as file:
        np.savez(file, spatial=features.float().cpu().numpy())
