"""Loading and saving weights: safe formats only, and a report by name of whatever does not fit."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from .data.files import write_atomically

logger = logging.getLogger(__name__)

_NAMES_SHOWN = 8


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read, is not plain tensors, or does not fit the model."""


class VideoCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, reading .pth, .pkl and .safetensors without running code from the file.

    Weights have Detectron2's names, so that its checkpoints load with no renaming. In one line it says whether all is
    well; what does not fit is an error that names the parameters.
    """

    def __init__(self, model: nn.Module, save_dir: str = "", *, complete: bool = True, **checkpointables: Any) -> None:
        """
        Args:
            complete: every parameter of the model has to be in the file with its shape. Otherwise (training from
                other weights) parts outside the ViT may be missing or of another shape, and start fresh.
        """
        super().__init__(model, save_dir, **checkpointables)
        self.complete = complete

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if path and "://" not in path and not Path(path.split("?")[0]).is_file():
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
        return data if "model" in data else {"model": data}

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        self._convert_ndarray_to_tensor(checkpoint["model"])
        # Stored by some checkpoints although they are settings, not weights.
        for name in ("pixel_mean", "pixel_std"):
            checkpoint["model"].pop(name, None)
        # Names as saved from DistributedDataParallel carry a prefix, which fvcore strips while loading.
        given = {name.removeprefix("module.") for name in checkpoint["model"]}
        incompatible = super()._load_model(checkpoint)
        wanted = set(self.model.state_dict())
        misfits = [f"{name} (file {found}, model {needed})" for name, found, needed in incompatible.incorrect_shapes]
        wrong_shape = {name for name, _, _ in incompatible.incorrect_shapes}
        missing = sorted(wanted - given)
        self._report(len(wanted) - len(missing) - len(misfits), len(wanted), missing, misfits, sorted(given - wanted))
        self._require(missing, misfits, wrong_shape, bool(wanted & given - wrong_shape))
        return incompatible

    @staticmethod
    def _report(loaded: int, wanted: int, missing: list[str], misfits: list[str], unused: list[str]) -> None:
        level = logging.INFO if loaded == wanted else logging.WARNING
        logger.log(level, "checkpoint: %d of %d parameters loaded, %d in the file unused", loaded, wanted, len(unused))
        for title, names in (("not in the file", missing), ("other shape", misfits), ("not used", unused)):
            if names:
                logger.log(level, "checkpoint, %s: %s", title, shorten(names))

    def _require(self, missing: list[str], misfits: list[str], wrong_shape: set[str], any_fits: bool) -> None:
        if not any_fits:
            raise CheckpointError(
                f"MODEL.WEIGHTS holds no parameter of this model; expected names such as {shorten(missing, 2)}"
            )
        essential = [name for name in wrong_shape if name.startswith("backbone.net.")]
        if (self.complete and (missing or misfits)) or essential:
            raise CheckpointError(
                "MODEL.WEIGHTS does not fit the model (is MODEL.* that of the checkpoint?). "
                f"Other shape: {shorten(misfits) or 'none'}. Not in the file: {shorten(missing) or 'none'}."
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
