"""What the numbers of an evaluation depend on, so that results of different settings are never mixed.

The fingerprint lies beside the records of an evaluation. A run that finds another one there replaces a complete
evaluation and refuses to touch an incomplete one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import cv2
import detectron2
import PIL
import torch
import torchvision
from detectron2.config import CfgNode
from eventful_vit.ops.cpu import describe_kernels
from torch import nn

from .. import __version__
from ..budgets import DENSE
from ..errors import EvaluationError
from ..files import remove_if_there, write_atomically
from ..masks import NO_MASKS, MaskRequest
from .stored_detections import StoredDetections

FINGERPRINT_FILE = "fingerprint.json"

TEST_KEYS = (
    "INPUT.FORMAT",
    "INPUT.MIN_SIZE_TEST",
    "INPUT.MAX_SIZE_TEST",
    "TEST.STREAMS_PER_BATCH",
)
# The policy and the weights have entries of their own, and the thresholds only select from the stored detections.
LEFT_OUT = (
    *("MODEL.WEIGHTS", "MODEL.WEIGHTS_SET", "MODEL.DEVICE", "MODEL.ROI_HEADS.SCORE_THRESH_TEST"),
    "MODEL.CLASS_NAMES",
)
EVENTFUL_ONLY = "MODEL.EVENTFUL."
ALSO_DENSE = ("MODEL.EVENTFUL.KV_POOL",)
POLICY_KEYS = tuple(EVENTFUL_ONLY + key for key in ("ENABLED", "POLICY", "R", "THRESHOLD", "FRACTION"))

COMPUTING = ("eventful", "modeling")
"""Folders of the package that detections and counts come from."""

logger = logging.getLogger(__name__)

_MAX_NAMED = 5


def make_fingerprint(
    cfg: CfgNode,
    *,
    policy: str,
    stored: StoredDetections,
    masks: MaskRequest = NO_MASKS,
    weights: str,
    dataset: str,
    device: str,
    threads: int,
) -> dict:
    """Everything that detections and counts depend on, by name.

    Args:
        policy: description of the policy that the model has, or "dense".
        stored: which detections are kept.
        masks: which of them with their masks.
        weights: `hash_weights` of the model.
        dataset: `hash_frames` of the data set.
        device: name of the device.
        threads: CPU threads of every process. They matter, in the last bits of a sum, on the CPU only; so do the
            compiled kernels, or that there are none.
    """
    on_cpu = device == "cpu"
    model = {f"MODEL.{key}": value for key, value in _flatten(cfg.MODEL) if _matters(f"MODEL.{key}", policy)}
    return {
        "weights": weights,
        "data set": dataset,
        "policy": policy,
        "device": device,
        "threads": threads if on_cpu else None,
        "kernels": describe_kernels() if on_cpu else None,
        "eventful_vitdet": f"{__version__}, code {hash_code()}",
        "detectron2": detectron2.__version__,
        "torch": f"{torch.__version__}, torchvision {torchvision.__version__}",
        "decoders": f"OpenCV {cv2.__version__}, Pillow {PIL.__version__}",
        "TEST.VID_SCORE_FLOOR": stored.score_floor,
        "TEST.VID_DETECTIONS_PER_IMAGE": stored.per_image,
        **({} if masks == NO_MASKS else {"masks": f"score {masks.min_score}, per image {masks.per_image}"}),
        **{key: _lookup(cfg, key) for key in TEST_KEYS},
        **model,
    }


def hash_weights(model: nn.Module) -> str:
    """A hash of all parameters and buffers by name, whatever file they came from and whatever device they are on."""
    state = hashlib.blake2b(digest_size=16)
    for name, value in sorted(model.state_dict().items()):
        state.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        state.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return state.hexdigest()


def hash_code() -> str:
    """A hash of the sources that compute, so that results of changed code are not mixed either."""
    state = hashlib.blake2b(digest_size=4)
    package = Path(__file__).resolve().parents[1]
    for path in sorted(path for part in COMPUTING for path in (package / part).rglob("*.py")):
        state.update(path.read_bytes())
    return state.hexdigest()


def hash_frames(frames: Iterable[Mapping], classes: list[str]) -> str:
    """A hash of a data set's frames, annotations and class names; not of the folder that it lies in."""
    state = hashlib.blake2b(json.dumps(classes).encode(), digest_size=16)
    for frame in frames:
        entry = {**frame, "file_name": os.path.basename(frame["file_name"])}
        state.update(json.dumps(entry, sort_keys=True, default=repr).encode())
    return state.hexdigest()


def is_outdated(folder: str, fingerprint: Mapping, finished: int) -> bool:
    """Whether the `finished` records in a folder belong to a *complete* evaluation under another fingerprint.

    Raises EvaluationError if they belong to one that is incomplete: many hours of work may be waiting to go on.
    """
    if not finished:
        return False
    path = os.path.join(folder, FINGERPRINT_FILE)
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        complete, before = found["complete"], found["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(
            f"{path}: cannot be read ({error}), so nobody knows how the {finished} finished videos beside it were "
            "evaluated; start over with --restart"
        ) from error
    # Through JSON, which turns tuples into lists.
    differences = list(_differences(before, json.loads(json.dumps(fingerprint))))
    if not differences:
        return False
    more = f" and {len(differences) - _MAX_NAMED} more" if len(differences) > _MAX_NAMED else ""
    named = "; ".join(differences[:_MAX_NAMED]) + more
    if not complete:
        raise EvaluationError(
            f"{folder} holds {finished} finished videos of an incomplete evaluation that this one does not continue: "
            f"{named}. Start over with --restart, or choose another OUTPUT_DIR"
        )
    logger.warning("%s holds the results of another evaluation, which are replaced: %s", folder, named)
    return True


def write_fingerprint(folder: str, fingerprint: Mapping, *, complete: bool) -> None:
    """Say under which settings the records of a folder are made, and whether all videos have been run."""
    content = {"complete": complete, "fingerprint": fingerprint}
    write_atomically(os.path.join(folder, FINGERPRINT_FILE), json.dumps(content, indent=2) + "\n")


def remove_fingerprint(folder: str) -> None:
    """Forget it; other processes may be doing the same."""
    remove_if_there(os.path.join(folder, FINGERPRINT_FILE))


def _differences(found: Mapping, wanted: Mapping) -> Iterator[str]:
    for key in (*wanted, *(key for key in found if key not in wanted)):
        before, now = (side.get(key, "not there") for side in (found, wanted))
        if before != now:
            yield f"{key} was {before}, now it is {now}"


def _matters(key: str, policy: str) -> bool:
    if key in LEFT_OUT or key in POLICY_KEYS:
        return False
    return policy != DENSE or not key.startswith(EVENTFUL_ONLY) or key in ALSO_DENSE


def _flatten(node: CfgNode, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in sorted(node.items()):
        if isinstance(value, CfgNode):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _lookup(cfg: CfgNode, key: str) -> object:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg
