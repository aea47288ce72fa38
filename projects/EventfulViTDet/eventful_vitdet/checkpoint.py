"""Loading and saving weights: a report by name of whatever does not fit, and a training resumed after its last whole
checkpoint. How files are read is in weight_files.py, which of their weights are taken in weight_sets.py."""

from __future__ import annotations

import http.client
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import torch
from detectron2.checkpoint import DetectionCheckpointer
from fvcore.common.checkpoint import Checkpointer
from torch import nn

from .checkpoint_names import RELATIVE_TABLE, VIT_PREFIX, adapt_names, resize_position_weights
from .errors import CheckpointError, DamagedCheckpointError, shorten
from .files import write_atomically
from .known_models import place_of
from .published_models import describe_origin
from .video.connections import hide_secrets
from .weight_files import first_line, read_checkpoint
from .weight_sets import choose_set

logger = logging.getLogger(__name__)

BACKBONE_PREFIX = "backbone."
LAST = "last_checkpoint"
HINT = " (is MODEL.* that of the checkpoint?). "
_FILE_SCHEME = "file://"
_HEURISTICS = "?matching_heuristics=True"
"""Detectron2 appends this to the address of a file with other names; here the names are recognised."""


class VideoCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, reading .pth, .pkl and .safetensors without running code from the file.

    Weights have Detectron2's names, so that its checkpoints load with no renaming; other names are recognised
    (checkpoint_names.py), and position tables for other image sizes resized. In one line it says whether all is well;
    what does not fit is an error that names the parameters.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        complete: bool = True,
        reinitialize: Sequence[str] = (),
        weights_set: str = "",
        **checkpointables: Any,
    ) -> None:
        """
        The first three do not hold for a checkpoint that `resume_or_load` resumes from: that is complete, and taken as
        it is.

        Args:
            complete: every parameter of the model has to be in the file with its shape. Otherwise (training from
                other weights) parts outside the ViT and its tables of relative positions may be missing, and stay as
                they were initialised.
            reinitialize: prefixes of parameters to re-initialise instead of loading.
            weights_set: which set of weights to take from a file that has several; "" takes the usual one.
        """
        super().__init__(model, save_dir, **checkpointables)
        self.complete = complete
        self.reinitialize = tuple(reinitialize)
        self.weights_set = weights_set
        self.stored: frozenset[str] = frozenset()
        """What the file that was loaded last holds: "model", and names of checkpointables."""
        self.resumed_from: str | None = None
        """The checkpoint that `resume_or_load` has resumed from."""

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a file by its path, or by an https://, detectron2:// or file:// address. Raises CheckpointError."""
        if not path:
            return super().load(path, *args, **kwargs)
        local = self._fetch(path.removesuffix(_HEURISTICS))
        try:
            # fvcore's: the real Detectron2's takes a path with "?" or ":" for an address, and may read another file.
            return Checkpointer.load(self, local, *args, **kwargs)
        except DamagedCheckpointError as error:
            if "://" not in path or path.startswith(_FILE_SCHEME):
                raise
            raise DamagedCheckpointError(
                f"{error} (fetched from {hide_secrets(path)}; delete the file to fetch it again)"
            ) from error

    def _fetch(self, path: str) -> str:
        """The local file of a path or an address."""
        if path.startswith(_FILE_SCHEME):
            address = urlsplit(path)
            if address.netloc not in ("", "localhost"):
                raise CheckpointError(f"MODEL.WEIGHTS: {path} is on another machine; file:// takes three slashes")
            path = url2pathname(address.path)
        if "://" in path:
            place = place_of(path)
            if place is not None and not os.path.isfile(place):
                logger.info("fetching %s to %s", hide_secrets(path), place)
            try:
                with _quiet_downloads():
                    local = self.path_manager.get_local_path(path)
            except (OSError, AssertionError, ValueError, RuntimeError, http.client.HTTPException) as error:
                by_hand = (
                    f". Download it elsewhere and put it at {place}, or give the file's path. `eventful-vitdet models` "
                    "says which models' weights are here"
                    if place
                    else ""
                )
                raise CheckpointError(
                    f"MODEL.WEIGHTS: {hide_secrets(path)} cannot be fetched: {error}{by_hand}"
                ) from error
            if not os.path.isfile(local):
                raise CheckpointError(f"MODEL.WEIGHTS: {path} cannot be fetched: unknown kind of address")
            return local
        if os.path.isdir(path):
            raise CheckpointError(f"MODEL.WEIGHTS: {path} is a folder; name the file in it")
        if not os.path.isfile(path):
            raise CheckpointError(f"MODEL.WEIGHTS: there is no file {path}")
        return path

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Load the last checkpoint of the folder with all that belongs to it, or, without one, the weights of `path`.

        A checkpoint that cannot be read is said in the log, and the one before is taken. Raises CheckpointError if
        there are some, and none of them can be read.
        """
        if not (resume and self.has_checkpoint()):
            return self.load(path, checkpointables=[])
        self.complete, self.reinitialize, self.weights_set = True, (), ""
        broken = []
        for candidate in self._checkpoints():
            try:
                if not os.path.isfile(candidate):
                    raise DamagedCheckpointError(f"{Path(self.save_dir, LAST)} names {candidate}, which is not there")
                extra = self.load(str(candidate))
            except DamagedCheckpointError as error:
                logger.error("--resume: %s. Trying the checkpoint before it", error)
                broken.append(candidate.name)
            else:
                self.resumed_from = str(candidate)
                return extra
        raise CheckpointError(
            f"--resume: none of the checkpoints in {self.save_dir} can be read ({shorten(broken)}): "
            "leave --resume out to begin with MODEL.WEIGHTS"
        )

    def _checkpoints(self) -> Iterator[Path]:
        """The last checkpoint, and those of earlier iterations, newest first."""
        last = Path(self.get_checkpoint_file())
        yield last
        numbered = {}
        for file in Path(self.save_dir).glob("model_*.pth"):
            if found := re.fullmatch(r"model_([0-9]+)\.pth", file.name):
                numbered[int(found[1])] = file
        own = re.fullmatch(r"model_([0-9]+)\.pth", last.name)
        for number in sorted(numbered, reverse=True):
            if number < (int(own[1]) if own else number + 1):
                yield numbered[number]

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
        write_atomically(str(Path(self.save_dir, LAST)), last_filename_basename)

    def _load_file(self, filename: str) -> dict[str, Any]:
        content = read_checkpoint(filename)
        key, weights = choose_set(filename, content, self.weights_set)
        others = {name: value for name, value in content.items() if name not in (key, *weights)}
        self.stored = frozenset({*others, "model"})
        return {**others, "model": weights}

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        # Where the real Detectron2 runs, it would guess names by their endings.
        checkpoint.pop("matching_heuristics", None)
        shapes = {name: value.shape for name, value in self.model.state_dict().items()}
        found = checkpoint["model"]
        checkpoint["model"] = self._adapt(found, shapes)
        file_shapes = {name: value.shape for name, value in checkpoint["model"].items()}
        given, wanted = set(file_shapes), set(shapes)
        misfits = {
            name: f"{name} (file {tuple(file_shapes[name])}, model {tuple(needed)})"
            for name, needed in shapes.items()
            if name in given and file_shapes[name] != needed
        }
        fresh = {name for name in wanted if name.startswith(self.reinitialize)}
        missing = sorted(wanted - given - fresh)
        unused = sorted(given - wanted)
        if fresh:
            logger.info("checkpoint, re-initialised as MODEL.REINITIALIZE asks: %s", shorten(sorted(fresh)))
        complaint = self._complaint(missing, misfits, [name for name in unused if name.startswith(BACKBONE_PREFIX)])
        if not wanted & given:
            complaint = (
                f"MODEL.WEIGHTS holds no parameter of this model: found names such as {shorten(sorted(found), 3)}; "
                f"expected names such as {shorten(sorted(wanted), 3)}"
            )
        elif complaint:
            origin = describe_origin(file_shapes, shapes)
            complaint = "MODEL.WEIGHTS does not fit the model" + (f". {origin}. " if origin else HINT) + complaint
        loaded = len(wanted & given) - len(misfits)
        level = logging.DEBUG if complaint else logging.INFO if loaded == len(wanted) else logging.WARNING
        self._report(level, loaded, len(wanted), missing, list(misfits.values()), unused)
        if complaint:
            raise CheckpointError(complaint)
        self._check_numbers(checkpoint["model"])
        return super()._load_model(checkpoint)

    def _check_numbers(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Raise CheckpointError for weights that the model's data types turn into something else."""
        for name, parameter in self.model.state_dict().items():
            value = weights.get(name)
            if value is None or not parameter.is_floating_point():
                continue
            if not value.is_floating_point():
                raise CheckpointError(
                    f"MODEL.WEIGHTS: {name} has the type {value.dtype}, as quantised weights have; a detector needs "
                    "the floating-point weights that they were made from"
                )
            if value.dtype == torch.float64 and not torch.isfinite(value.to(parameter.dtype)).all():
                raise CheckpointError(f"MODEL.WEIGHTS: {name} has numbers that are too large for {parameter.dtype}")

    def _adapt(self, weights: Mapping[str, torch.Tensor], shapes: Mapping[str, torch.Size]) -> dict[str, torch.Tensor]:
        """The weights under the model's names, without what a model does not take from a file."""
        rename = getattr(self.model, "rename_weights", None)
        adapted, remarks = rename(weights) if rename is not None else adapt_names(weights, shapes)
        for remark in remarks:
            logger.info("checkpoint: %s", remark)
        for prefix in self.reinitialize:
            if not isinstance(prefix, str) or not any(name.startswith(prefix) for name in shapes):
                raise CheckpointError(f"MODEL.REINITIALIZE: no parameter's name begins with {prefix!r}")
            adapted = {name: value for name, value in adapted.items() if not name.startswith(prefix)}
        resized = resize_position_weights(adapted, shapes)
        matrices = any(getattr(module, "rel_pos_resize", "") == "matrix" for module in self.model.modules())
        if matrices and (tables := [text for text in resized if RELATIVE_TABLE.match(text)]):
            raise CheckpointError(
                "MODEL.VIT.REL_POS_RESIZE is 'matrix', so tables have to be as long as the file's: set "
                f"MODEL.VIT.REL_POS_IMG_SIZE to the size that it was trained for ({tables[0]})"
            )
        if resized:
            logger.info("checkpoint, positions resized for this model: %s", shorten(resized, 3))
        return adapted

    @staticmethod
    def _report(
        level: int, loaded: int, wanted: int, missing: list[str], misfits: list[str], unused: list[str]
    ) -> None:
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

    def _complaint(self, missing: list[str], misfits: dict[str, str], extra: list[str]) -> str:
        """Which parameters do not fit that have to; "" where all is well."""
        if not self.complete:
            # Tables of relative positions begin at zero: a ViT that has been trained without them is as it was.
            missing = [name for name in missing if name.startswith(VIT_PREFIX) and not RELATIVE_TABLE.fullmatch(name)]
        parts = sorted({".".join(name.split(".")[:2]) for name in misfits if not name.startswith(VIT_PREFIX)})
        sentences = []
        if parts and not self.complete:
            sentences.append(f'To re-initialise parts, name them: MODEL.REINITIALIZE "{parts}"')
        if misfits:
            sentences.append(f"Other shape: {shorten(list(misfits.values()), 3)}")
        if missing:
            sentences.append(f"Not in the file: {shorten(missing, 3)}")
        if extra:
            sentences.append(f"The file's backbone has parts that this model lacks: {shorten(extra, 3)}")
        return ". ".join(sentences)


@contextmanager
def _quiet_downloads() -> Iterator[None]:
    """Within the context, iopath does not log a download that fails, which is an error of ours."""
    downloads = logging.getLogger("iopath.common.download")
    before = downloads.level
    downloads.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        downloads.setLevel(before)
