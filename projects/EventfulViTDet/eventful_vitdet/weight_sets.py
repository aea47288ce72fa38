"""Weights by name in what a checkpoint file holds: which sets there are, which is taken, and whether it is sound."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import CheckpointError, DamagedCheckpointError, shorten
from .weight_files import MAX_INFLATION

PREFERRED = ("model", "state_dict", "model_state", "model_state_dict", "module", "net", "weights", "params", "teacher")
"""The sets that are taken, in this order, where a file has several and nobody chooses."""
MAX_DIMENSIONS = 16
"""No weights have more than five. PyTorch computes with no more than 64."""
BARE = "(the file itself)"
"""The name of the set where the file is nothing but one."""
DTYPES = frozenset(
    [torch.float16, torch.bfloat16, torch.float32, torch.float64]
    + [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
)

logger = logging.getLogger(__name__)


def find_sets(data: Any) -> dict[str, dict[str, Any]]:
    """Every set of weights in the content of a file by its key, "outer.inner" where it is in another dict."""
    if not isinstance(data, Mapping):
        return {}
    sets = {BARE: dict(data)} if _is_set(data) else {}
    for key, value in data.items():
        if not isinstance(key, str) or not isinstance(value, Mapping):
            continue
        if _is_set(value):
            sets[key] = dict(value)
        else:
            inner = {name: held for name, held in value.items() if isinstance(held, Mapping) and _is_set(held)}
            sets.update({f"{key}.{name}": dict(held) for name, held in inner.items()})
    return sets


def _is_set(value: Mapping) -> bool:
    return all(isinstance(name, str) for name in value) and any(map(_is_array, value.values()))


def _is_array(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray))


def choose_set(filename: str, data: Any, wanted: str = "") -> tuple[str, dict[str, Tensor]]:
    """The key of the set that is `wanted`, or else of the usual one, and its weights as sound tensors.

    Raises:
        CheckpointError: there is no such set; the message names those that there are.
        DamagedCheckpointError: there is none at all, or its weights cannot be used.
    """
    sets = find_sets(data)
    if not sets:
        raise DamagedCheckpointError(
            f"{filename} holds no weights by name: expected names with tensors, found {_describe(data)}"
        )
    if wanted and wanted not in sets:
        raise CheckpointError(f"MODEL.WEIGHTS_SET: {filename} has no set {wanted!r}, only {', '.join(sets)}")
    chosen = wanted or next((name for name in PREFERRED if name in sets), max(sets, key=lambda name: len(sets[name])))
    if len(sets) > 1:
        logger.info(
            "checkpoint: %s has several sets of weights: %s; used: %s%s",
            filename,
            ", ".join(sets),
            chosen,
            "" if wanted else " (MODEL.WEIGHTS_SET chooses)",
        )
    others = [name for name, value in sets[chosen].items() if not _is_array(value)]
    if others and chosen != BARE:
        logger.info("checkpoint, no tensors and left out: %s", shorten(others))
    arrays = {name: value for name, value in sets[chosen].items() if _is_array(value)}
    return chosen, check_weights(filename, arrays)


def _describe(data: Any, depth: int = 3) -> str:
    if not isinstance(data, Mapping):
        return type(data).__name__
    names = [f"{name!r}: {type(value).__name__}" for name, value in list(data.items())[:5]]
    inner = next((value for value in data.values() if isinstance(value, Mapping) and value), None)
    shown = ", ".join(names) or "nothing"
    return f"{shown} (in it {_describe(inner, depth - 1)})" if inner is not None and depth else shown


def check_weights(filename: str, weights: Mapping[str, Tensor | np.ndarray]) -> dict[str, Tensor]:
    """The weights as tensors. Raises DamagedCheckpointError for kinds of tensors that no model here has, for those that
    claim to be larger than what is stored of them, and for NaN or infinity.

    The detector drops boxes and scores that are not finite, so such weights would quietly find nothing.
    """
    _check_size(filename, weights, np.ndarray)
    tensors = {name: _as_tensor(filename, name, value) for name, value in weights.items()}
    _check_size(filename, tensors, Tensor)
    broken = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
    if broken:
        raise DamagedCheckpointError(
            f"{filename}: the weights are not finite (did training diverge?): {shorten(broken)}"
        )
    return tensors


def _check_size(filename: str, weights: Mapping[str, Tensor | np.ndarray], kind: type) -> None:
    """Raise DamagedCheckpointError where many names share what little is stored: reading all takes hours."""
    claimed, stored = sum(v.nbytes for v in weights.values() if isinstance(v, kind)), os.path.getsize(filename)
    if claimed > MAX_INFLATION * stored:
        raise DamagedCheckpointError(f"{filename} claims arrays of {claimed:,} bytes, but has only {stored:,} bytes")


def _as_tensor(filename: str, name: str, value: Tensor | np.ndarray) -> Tensor:
    reason = _reason_against(value)
    if reason is None and isinstance(value, np.ndarray):
        if not (value.dtype.isnative and value.flags.c_contiguous and value.flags.writeable):
            value = np.array(value, value.dtype.newbyteorder("="), order="C")
        value = torch.from_numpy(value)
    if reason is None and value.dtype not in DTYPES:
        reason = f"a tensor of the type {value.dtype}"
    if reason is not None:
        raise DamagedCheckpointError(f"{filename}: {name} is {reason}, which no weights of this model are")
    return value.detach()


def _reason_against(value: Tensor | np.ndarray) -> str | None:
    if value.ndim > MAX_DIMENSIONS:
        return f"an array of {value.ndim} dimensions"
    if isinstance(value, np.ndarray):
        is_known = type(value) is np.ndarray and (value.dtype.kind in "fib" or value.dtype == np.uint8)
        return None if is_known and value.dtype.itemsize <= 8 else f"an array of the type {value.dtype}"
    if type(value) not in (Tensor, torch.nn.Parameter) or value.layout != torch.strided or value.is_nested:
        return f"a {type(value).__name__} with the layout {value.layout}"
    if value.is_quantized or value.device.type != "cpu":
        return f"a tensor of the type {value.dtype} on {value.device.type}"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"a tensor of {value.numel()} elements of which fewer are stored"
    return None
