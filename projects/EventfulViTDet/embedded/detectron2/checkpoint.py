from __future__ import annotations

from typing import Any

import torch
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from fvcore.common.checkpoint import Checkpointer


class DetectionCheckpointer(Checkpointer):
    """fvcore's checkpointer, writing only in the main process; it reads detectron2:// addresses too."""

    def __init__(self, model: torch.nn.Module, save_dir: str = "", **checkpointables: Any) -> None:
        """``checkpointables`` (optimizer, trainer, ...) are saved with the model and loaded by ``resume_or_load``."""
        super().__init__(model, save_dir, save_to_disk=comm.is_main_process(), **checkpointables)
        self.path_manager = PathManager

    def _load_file(self, filename: str) -> dict[str, Any]:
        with self.path_manager.open(filename, "rb") as file:  # before 2.6, PyTorch would run code from it
            return torch.load(file, map_location="cpu", weights_only=True)
