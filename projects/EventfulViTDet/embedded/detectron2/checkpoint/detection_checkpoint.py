"""Saving and loading of models and training state."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.utils import comm
from fvcore.common.checkpoint import Checkpointer


class DetectionCheckpointer(Checkpointer):
    """fvcore's checkpointer that writes only in the main process, leaves no half-written file behind, and
    reads nothing but plain data (tensors, numbers, strings and containers of these)."""

    def __init__(
        self,
        model: torch.nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        **checkpointables: Any,
    ) -> None:
        on_disk = comm.is_main_process() if save_to_disk is None else save_to_disk
        super().__init__(model, save_dir, save_to_disk=on_disk, **checkpointables)

    def save(self, name: str, **kwargs: Any) -> None:
        """Write model, checkpointables and ``kwargs`` to ``<save_dir>/<name>.pth``; tag it as the last."""
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict()}
        data.update({key: part.state_dict() for key, part in self.checkpointables.items()})
        data.update(kwargs)
        self.logger.info("Saving checkpoint %s.pth in %s", name, self.save_dir)
        with _complete_or_absent(os.path.join(self.save_dir, f"{name}.pth")) as temporary:
            torch.save(data, temporary)
        self.tag_last_checkpoint(f"{name}.pth")

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Note in ``<save_dir>/last_checkpoint`` which file to resume from."""
        with _complete_or_absent(os.path.join(self.save_dir, "last_checkpoint")) as temporary:
            with open(temporary, "w") as file:
                file.write(last_filename_basename)

    def _load_file(self, f: str) -> dict[str, Any]:
        """Raises ValueError for a file that is damaged or holds more than plain data."""
        try:
            loaded = torch.load(f, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise ValueError(f"checkpoint '{f}' is damaged or holds more than plain data: {error}") from error
        return loaded if "model" in loaded else {"model": loaded}


@contextmanager
def _complete_or_absent(path: str) -> Iterator[str]:
    """Yield a temporary name beside ``path``, and rename it to that at the end; after an error or Ctrl-C
    inside, the temporary file is removed and ``path`` is what it was."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
