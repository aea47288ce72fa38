"""What the numbers of an evaluation depend on, so that results of different settings are never mixed.

The fingerprint lies beside the records of an evaluation. A run that finds another one there says what differs and ends;
only --restart replaces what is there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

import av
import detectron2
import PIL
import torch
import torchvision
from detectron2.config import CfgNode
from eventful_vit.ops import cpu, gpu, tf32
from torch import nn

from ..budgets import DENSE
from ..config_values import lookup
from ..errors import EvaluationError
from ..files import write_atomically
from ..masks import NO_MASKS, MaskRequest
from .computing_code import hash_detectron2, hash_our_code, hash_transformer
from .stored_detections import StoredDetections

FINGERPRINT_FILE = "fingerprint.json"

TEST_KEYS = (
    "INPUT.FORMAT",
    "INPUT.MIN_SIZE_TEST",
    "INPUT.MAX_SIZE_TEST",
    "TEST.STREAMS_PER_BATCH",
)
ELSEWHERE = (
    "MODEL.WEIGHTS",
    "MODEL.WEIGHTS_SET",
    "MODEL.REINITIALIZE",
    "MODEL.CLASS_NAMES",
    "MODEL.DEVICE",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST",
)
"""Weights, device and policy have entries of their own; the threshold only selects from the stored detections."""
POLICY_KEYS = tuple(
    f"MODEL.EVENTFUL.{key}" for key in ("ENABLED", "POLICY", "R", "THRESHOLD", "FRACTION", "GATES", "POLICY_FILE")
)
TRAINING_ONLY = (
    "MODEL.*_TRAIN",
    "MODEL.*.BATCH_SIZE_PER_IMAGE",
    "MODEL.*.POSITIVE_FRACTION",
    "MODEL.*.IOU_THRESHOLDS",
    "MODEL.*.IOU_LABELS",
    "MODEL.*LOSS_TYPE",
    "MODEL.*LOSS_WEIGHT",
    "MODEL.*.SMOOTH_L1_BETA",
    "MODEL.*.PROPOSAL_APPEND_GT",
    "MODEL.*.TRAIN_ON_PRED_BOXES",
    "MODEL.VIT.DROP_PATH_RATE",
    "MODEL.VIVIT.CLASS_NAMES",
    "MODEL.VIVIT.DROPOUT",
    "MODEL.VIVIT.FREEZE_SPATIAL",
    "MODEL.VIVIT.TRAIN_WITH_GATES",
)
NOT_IN_EVALUATION = ("MODEL.EVENTFUL.CONTROLLER.*",)
"""An evaluation runs at a fixed budget."""
GPU_ONLY = ("MODEL.EVENTFUL.GPU_CROSSOVER",)
EVENTFUL_ONLY = "MODEL.EVENTFUL.*"
ALSO_DENSE = ("MODEL.EVENTFUL.KV_POOL", "MODEL.EVENTFUL.COMPUTE_DTYPE")
PYRAMID = "MODEL.EVENTFUL.PYRAMID.*"

MAX_NAMED = 5


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
        stored: which detections are kept.
        masks: which of them with their masks.
        policy, weights, dataset, device, threads: see `common_settings`; the data set's hash is `hash_frames`.
    """
    named = {"policy": policy, "weights": weights, "dataset": dataset, "device": device, "threads": threads}
    return {
        **common_settings(cfg, **named, code=hash_our_code()),
        "TEST.VID_SCORE_FLOOR": stored.score_floor,
        "TEST.VID_DETECTIONS_PER_IMAGE": stored.per_image,
        **({} if masks == NO_MASKS else {"masks": f"score {masks.min_score}, per image {masks.per_image}"}),
        **{key: lookup(cfg, key) for key in TEST_KEYS},
    }


def common_settings(
    cfg: CfgNode, *, policy: str, weights: str, dataset: str, device: str, threads: int, code: str
) -> dict:
    """What the numbers of any evaluation depend on, by name: of videos, or of clips.

    Args:
        policy: description of the policy that the model has, with all its numbers, or "dense".
        weights: `hash_weights` of the model.
        dataset: a hash of the data set.
        device: name of the device.
        threads: CPU threads of every process. They matter, in the last bits of a sum, on the CPU only.
        code: `hash_our_code` of the part of this package that the numbers come from.
    """
    on_cpu = device == "cpu"
    keys = {f"MODEL.{key}": value for key, value in _flatten(cfg.MODEL)}
    model = {key: value for key, value in keys.items() if _matters(key, policy, cfg, on_cpu)}
    return {
        "weights": weights,
        "data set": dataset,
        "policy": policy,
        "device": device,
        "threads": threads if on_cpu else None,
        "kernels": (cpu if on_cpu else gpu).describe_kernels(),
        "arithmetic": _describe_arithmetic(on_cpu),
        "code of eventful_vitdet": code,
        "code of eventful_vit": hash_transformer(),
        "detectron2": f"{detectron2.__version__}, code {hash_detectron2()}",
        "torch": f"{torch.__version__}, torchvision {torchvision.__version__}",
        "decoders": f"PyAV {av.__version__}, Pillow {PIL.__version__}",
        **model,
    }


def hash_weights(model: nn.Module) -> str:
    """A hash of all parameters and buffers by name; files that they came from and devices do not matter."""
    state = hashlib.blake2b(digest_size=16)
    for name, value in sorted(model.state_dict().items()):
        state.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        state.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return state.hexdigest()


def hash_frames(frames: Iterable[Mapping], classes: list[str]) -> str:
    """A hash of a data set's frames, annotations and class names; not of the folder that it lies in."""
    state = hashlib.blake2b(json.dumps(classes).encode(), digest_size=16)
    for frame in frames:
        entry = {**frame, "file_name": os.path.basename(frame["file_name"])}
        state.update(json.dumps(entry, sort_keys=True, default=repr).encode())
    return state.hexdigest()


def name_differences(found: Mapping, wanted: Mapping) -> str:
    """How a fingerprint differs from the one that is wanted, in words; "" if it does not."""
    # As they are read: JSON turns tuples into lists.
    differences = list(_differences(*(json.loads(json.dumps(side)) for side in (found, wanted))))
    more = f" and {len(differences) - MAX_NAMED} more" if len(differences) > MAX_NAMED else ""
    return "; ".join(differences[:MAX_NAMED]) + more


def read_fingerprint(folder: str) -> dict:
    """{"complete", "fingerprint"} of the records in a folder. Raises EvaluationError if it cannot be read."""
    path = os.path.join(folder, FINGERPRINT_FILE)
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        return {"complete": bool(found["complete"]), "fingerprint": dict(found["fingerprint"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(
            f"{path}: cannot be read ({error}), so it is not known how the finished videos there were evaluated; "
            "start over with --restart, or choose another OUTPUT_DIR"
        ) from error


def write_fingerprint(folder: str, fingerprint: Mapping, *, complete: bool) -> None:
    """Say under which settings the records of a folder are made, and whether their results have been written."""
    content = {"complete": complete, "fingerprint": fingerprint}
    write_atomically(os.path.join(folder, FINGERPRINT_FILE), json.dumps(content, indent=2) + "\n")


def _differences(found: Mapping, wanted: Mapping) -> Iterator[str]:
    for key in (*wanted, *(key for key in found if key not in wanted)):
        before, now = (side.get(key, "not there") for side in (found, wanted))
        if before != now:
            yield f"{key} was {before}, now it is {now}"


def _matters(key: str, policy: str, cfg: CfgNode, on_cpu: bool) -> bool:
    idle = [*ELSEWHERE, *POLICY_KEYS, *TRAINING_ONLY, *NOT_IN_EVALUATION, *(GPU_ONLY if on_cpu else ())]
    if not cfg.MODEL.EVENTFUL.PYRAMID.ENABLED:
        idle.append(PYRAMID)
    if any(fnmatchcase(key, pattern) for pattern in idle):
        return False
    return policy != DENSE or not fnmatchcase(key, EVENTFUL_ONLY) or key in ALSO_DENSE


def _describe_arithmetic(on_cpu: bool) -> str:
    """What else decides the last bits of a sum: the processor's instructions, or how a GPU rounds factors."""
    if on_cpu:
        return torch.backends.cpu.get_cpu_capability()
    try:
        products = torch.get_float32_matmul_precision()
    except RuntimeError:  # set in PyTorch's newer terms only
        products = "high" if tf32.in_products() else "highest"
    return f"products {products}, convolutions {'TF32' if tf32.in_convolutions() else 'float32'}"


def _flatten(node: CfgNode, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in sorted(node.items()):
        if isinstance(value, CfgNode):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
