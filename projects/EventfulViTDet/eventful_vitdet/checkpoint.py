"""Loading and saving weights: safe formats only, and a report by name of whatever does not fit."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from .checkpoint_names import (
    RELATIVE_TABLE,
    VIT_PREFIX,
    from_plain_vit,
    is_plain_vit,
    resize_position_weights,
)
from .errors import CheckpointError
from .files import write_atomically

logger = logging.getLogger(__name__)

_NAMES_SHOWN = 8
_HEURISTICS = "?matching_heuristics=True"
"""Detectron2 appends this to the address of a file with other names; here the names are recognised."""


class VideoCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, reading .pth, .pkl and .safetensors without running code from the file.

    Weights have Detectron2's names, so that its checkpoints load with no renaming; those of a plain ViT, as of MAE, are
    recognised, and position tables for other image sizes resized. In one line it says whether all is well; what does
    not fit is an error that names the parameters.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        complete: bool = True,
        reinitialize: Sequence[str] = (),
        **checkpointables: Any,
    ) -> None:
        """
        Args:
            complete: every parameter of the model has to be in the file with its shape. Otherwise (training from
                other weights) parts outside the ViT and its tables of relative positions may be missing, and start
                fresh.
            reinitialize: how the names of parameters begin that start fresh, whatever the file has for them.
        """
        super().__init__(model, save_dir, **checkpointables)
        self.complete = complete
        self.reinitialize = tuple(reinitialize)
        self.stored: frozenset[str] = frozenset()
        """What the file that was loaded last holds: "model", and names of checkpointables."""

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        path = path.removesuffix(_HEURISTICS) if path else path
        if path and "://" not in path and not Path(path.split("?")[0]).is_file():
            if self.has_checkpoint() and path == self.get_checkpoint_file():
                raise CheckpointError(f"{Path(self.save_dir, 'last_checkpoint')} names {path}, which is not there")
            raise CheckpointError(f"MODEL.WEIGHTS: there is no file {path}")
        try:
            return super().load(path, *args, **kwargs)
        except (OSError, AssertionError) as error:  # fvcore asserts that a file is there
            raise CheckpointError(f"MODEL.WEIGHTS: {path} cannot be fetched: {error}") from error

    def save(self, name: str, *, tag: bool = True, **kwargs: Any) -> None:
        """Write to a temporary file first, so that an interruption leaves the older checkpoint whole.

        Args:
            tag: make this the checkpoint that a resumed training continues from.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        final = Path(self.save_dir, f"{name}.pth")
        data = {"model": self.model.state_dict()}
        data.update({key: obj.state_dict() for key, obj in self.checkpointables.items()}, **kwargs)
        temporary = final.with_suffix(".tmp")
        try:
            torch.save(data, temporary)
            temporary.replace(final)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            raise CheckpointError(f"{final} cannot be written (is the disk full?): {first_line(error)}") from error
        finally:
            temporary.unlink(missing_ok=True)
        logger.info("saved checkpoint %s", final)
        if tag:
            self.tag_last_checkpoint(final.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        # fvcore would empty the file before it writes, and a full disk leave it so.
        write_atomically(str(Path(self.save_dir, "last_checkpoint")), last_filename_basename)

    def _load_file(self, filename: str) -> dict[str, Any]:
        data = read_checkpoint(filename)
        weights = data.get("model", data) if isinstance(data, dict) else None
        if not isinstance(weights, dict):
            raise CheckpointError(f"{filename} holds no weights by name (found {type(weights or data).__name__})")
        check_weights(filename, weights)
        data = data if "model" in data else {"model": data}
        self.stored = frozenset(data)
        return data

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        self._convert_ndarray_to_tensor(checkpoint["model"])
        # Where the real Detectron2 runs, it would guess names by their endings.
        checkpoint.pop("matching_heuristics", None)
        shapes = {name: value.shape for name, value in self.model.state_dict().items()}
        checkpoint["model"] = self._adapt(checkpoint["model"], shapes)
        given, wanted = set(checkpoint["model"]), set(shapes)
        incompatible = super()._load_model(checkpoint)
        misfits = {
            name: f"{name} (file {found}, model {needed})" for name, found, needed in incompatible.incorrect_shapes
        }
        fresh = {name for name in wanted if name.startswith(self.reinitialize)}
        missing = sorted(wanted - given - fresh)
        if fresh:
            logger.info("checkpoint, started afresh as MODEL.REINITIALIZE asks: %s", shorten(sorted(fresh)))
        loaded = len(wanted & given) - len(misfits)
        self._report(loaded, len(wanted), missing, list(misfits.values()), sorted(given - wanted))
        self._require(missing, misfits, loaded > 0)
        return incompatible

    def _adapt(self, weights: dict[str, torch.Tensor], shapes: dict[str, torch.Size]) -> dict[str, torch.Tensor]:
        """The weights under the model's names, without what a model does not take from a file."""
        # Names as saved from DistributedDataParallel carry a prefix. Pixel statistics are settings, not weights.
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
        weights = {name: value for name, value in weights.items() if name not in ("pixel_mean", "pixel_std")}
        if is_plain_vit(weights) and any(name.startswith(VIT_PREFIX) for name in shapes):
            weights, left_out = from_plain_vit(weights)
            logger.info("checkpoint: a plain ViT's names (as MAE has them), read as %s*", VIT_PREFIX)
            if left_out:
                logger.info("checkpoint, %d without a use in a detector: %s", len(left_out), shorten(left_out))
        for prefix in self.reinitialize:
            if not isinstance(prefix, str) or not any(name.startswith(prefix) for name in shapes):
                raise CheckpointError(f"MODEL.REINITIALIZE: no parameter's name begins with {prefix!r}")
            weights = {name: value for name, value in weights.items() if not name.startswith(prefix)}
        resized = resize_position_weights(weights, shapes)
        if resized:
            logger.info("checkpoint, positions resized for this model: %s", shorten(resized, 3))
        return weights

    @staticmethod
    def _report(loaded: int, wanted: int, missing: list[str], misfits: list[str], unused: list[str]) -> None:
        level = logging.INFO if loaded == wanted else logging.WARNING
        logger.log(level, "checkpoint: %d of %d parameters loaded, %d in the file unused", loaded, wanted, len(unused))
        tables = [name for name in missing if RELATIVE_TABLE.fullmatch(name)]
        missing = [name for name in missing if name not in tables]
        for title, names in (
            ("not in the file", missing),
            ("tables of relative positions not in the file, left as they begin", tables),
            ("other shape", misfits),
            ("not used", unused),
        ):
            if names:
                logger.log(level, "checkpoint, %s: %s", title, shorten(names))

    def _require(self, missing: list[str], misfits: dict[str, str], any_fits: bool) -> None:
        if not any_fits:
            raise CheckpointError(
                f"MODEL.WEIGHTS holds no parameter of this model; expected names such as {shorten(missing, 2)}"
            )
        if not self.complete:
            # Tables of relative positions begin at zero: a ViT that has been trained without them is as it was.
            missing = [name for name in missing if name.startswith(VIT_PREFIX) and not RELATIVE_TABLE.fullmatch(name)]
        if not missing and not misfits:
            return
        advice = ""
        parts = sorted({".".join(name.split(".")[:2]) for name in misfits if not name.startswith(VIT_PREFIX)})
        if parts and not self.complete:
            advice = f' To train parts afresh, name them: MODEL.REINITIALIZE "{parts}".'
        raise CheckpointError(
            "MODEL.WEIGHTS does not fit the model (is MODEL.* that of the checkpoint?). "
            f"Other shape: {shorten(list(misfits.values())) or 'none'}. Not in the file: {shorten(missing) or 'none'}."
            + advice
        )


def check_weights(filename: str, weights: dict) -> None:
    """Raise CheckpointError for entries that are no tensors, or that hold NaN or infinity.

    The detector drops boxes and scores that are not finite, so such weights would quietly find nothing.
    """
    broken = []
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, (torch.Tensor, np.ndarray)):
            found = f"{name!r}: {type(value).__name__}"
            raise CheckpointError(f"{filename} holds no weights by name: expected names with tensors, found {found}")
        finite = torch.isfinite(value) if isinstance(value, torch.Tensor) else np.isfinite(value)
        if not finite.all():
            broken.append(name)
    if broken:
        raise CheckpointError(f"{filename}: the weights are not finite (did training diverge?): {shorten(broken)}")


def shorten(names: list[str], limit: int = _NAMES_SHOWN) -> str:
    """The first few names of a list, and how many more there are."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def read_checkpoint(filename: str) -> dict[str, Any]:
    """Read a file of plain tensors.

    Raises:
        CheckpointError: the file is damaged, or holds objects other than tensors, arrays, numbers and text.
    """
    try:
        if filename.endswith(".safetensors"):
            from safetensors.torch import load_file

            return {"model": load_file(filename)}
        if filename.endswith(".pkl"):
            with open(filename, "rb") as file:
                return ArrayUnpickler(file, encoding="latin1").load()
        return torch.load(filename, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{filename} is not a file of plain tensors, or it is damaged, and was not loaded: {first_line(error)}"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{filename} cannot be read as a checkpoint: {first_line(error)}") from error
    except Exception as error:
        # safetensors raises an exception class of its own, derived from nothing more specific.
        if type(error).__module__.startswith("safetensors"):
            raise CheckpointError(f"{filename} cannot be read as a checkpoint: {first_line(error)}") from error
        raise


def first_line(error: BaseException) -> str:
    """The first sentence of an error's message, without what torch advises its own users."""
    text = str(error).rpartition("WeightsUnpickler error: ")[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    advice = len(lines) > 1 and lines[0].startswith("Weights only load failed")
    return lines[advice].partition(". ")[0]


class ArrayUnpickler(pickle.Unpickler):
    """Reads pickles of NumPy arrays and plain containers (Detectron2's .pkl files), and nothing that runs code."""

    ALLOWED = {
        ("collections", "OrderedDict"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy._core.numeric", "_frombuffer"),
        ("numpy.core.numeric", "_frombuffer"),
        ("_codecs", "encode"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return super().find_class(module, name)
