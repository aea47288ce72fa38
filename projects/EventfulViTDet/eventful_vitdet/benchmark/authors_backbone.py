"""The backbone of the paper's authors, built from a checkout of their code, with the weights of a ViT of this project.

Nothing of their code is kept here: it is imported from the folder that the user names.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from eventful_vit import EventfulViT
from torch import Tensor, nn

from ..checkpoint_names import AUTHORS_BLOCK_PARTS
from ..errors import ConfigError, FileError

PACKAGE = "eventful_transformer"
SOURCE = "https://github.com/WISION-Lab/eventful-transformer"
BLOCKS = {
    "dense": ("Block", "Block"),
    "tokenwise": ("EventfulTokenwiseBlock", "EventfulTokenwiseBlock"),
    "query-key": ("EventfulMatmul1Block", "EventfulTokenwiseBlock"),
    "full": ("EventfulBlock", "EventfulTokenwiseBlock"),
}
"""For each attention mode of this project: the authors' classes for global blocks and for blocks with windows."""


@dataclass(frozen=True)
class AuthorsCode:
    """Their modules that are needed here."""

    backbones: ModuleType
    modules: ModuleType
    policies: ModuleType


def import_authors_code(folder: str) -> AuthorsCode:
    """Import the authors' package from a checkout.

    Raises:
        FileError: the folder does not hold it.
        ConfigError: it needs a package that is not installed.
    """
    root = Path(folder).expanduser().resolve()
    if not (root / PACKAGE / "backbones.py").is_file():
        raise FileError(f"{folder} has no {PACKAGE}/backbones.py: name the folder of a checkout of {SOURCE}")
    with _first_on_path(root):
        try:
            return AuthorsCode(*(importlib.import_module(f"{PACKAGE}.{name}") for name in AuthorsCode.__annotations__))
        except ModuleNotFoundError as error:
            raise ConfigError(f"the authors' code needs {error.name}, which is not installed: {folder}") from error


@contextmanager
def _first_on_path(root: Path) -> Iterator[None]:
    """Their code imports `utils` by this name, which may be another package elsewhere on the path."""
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))


class AuthorsViT(nn.Module):
    """Their backbone behind a patch embedding: (B, C, H, W) -> (B, N, D), frame by frame, as `EventfulViT` runs.

    The patch embedding is PyTorch's convolution with this project's weights, as in their detector.
    """

    def __init__(self, code: AuthorsCode, vit: EventfulViT, mode: str, grid: tuple[int, int]) -> None:
        """
        Args:
            vit: whose structure and weights to take; its relative positions must be of the kind "matrix".
            mode: "dense", or an attention mode in `BLOCKS`.
            grid: tokens of a frame along rows and columns.

        Raises:
            ConfigError: their code does not have such a model.
        """
        super().__init__()
        _check(vit, mode, grid)
        self._code = code
        self._embedding = vit.patch_embed.proj
        self.backbone = code.backbones.ViTBackbone(**_arguments(vit, mode, grid)).eval()
        self.backbone.load_state_dict(_renamed(vit))

    def forward(self, x: Tensor) -> Tensor:
        proj = self._embedding
        return self.backbone(F.conv2d(x, proj.weight, proj.bias, proj.stride).flatten(2).transpose(1, 2))

    def set_budget(self, r: int) -> None:
        """Let every gate pass r tokens on."""
        for gate in self.backbone.modules_of_type(self._code.modules.TokenGate):
            gate.policy = self._code.policies.TokenNormTopK(r)

    def start_counting(self) -> None:
        """Count operations from the next frame on."""
        self.backbone.counting()
        self.backbone.clear_counts()

    def stop_counting(self) -> dict[str, int]:
        """Operations since `start_counting`, by the authors' names."""
        self.backbone.no_counting()
        return dict(self.backbone.total_counts())

    def state_bytes(self) -> int:
        """Bytes of the tensors that their modules keep from frame to frame, each storage once."""
        storages = {}
        for module in self.backbone.modules():
            for value in vars(module).values():
                if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                    storage = value.untyped_storage()
                    storages[storage.data_ptr()] = storage.nbytes()
        return sum(storages.values())


def _check(vit: EventfulViT, mode: str, grid: tuple[int, int]) -> None:
    block = vit.blocks[0]
    if mode not in BLOCKS:
        raise ConfigError(f"attention {mode!r} is not in the authors' code; it has {', '.join(BLOCKS)}")
    if vit.pos_embed is None:
        raise ConfigError("MODEL.VIT.USE_ABS_POS False: the authors' backbone always adds positions")
    if block.attn.use_rel_pos and any(b.attn.rel_pos_resize != "matrix" for b in vit.blocks):
        raise ConfigError("MODEL.VIT.REL_POS_RESIZE must be matrix, as in the authors' code")
    pools = {b.kv_pool for b in vit.blocks}
    if max(pools) > 1 and any(side % max(pools) for side in grid):
        raise ConfigError(f"MODEL.EVENTFUL.KV_POOL {max(pools)}: the authors' code pools only grids that it divides")


def _arguments(vit: EventfulViT, mode: str, grid: tuple[int, int]) -> dict:
    """What their backbone is built with."""
    in_global, in_windows = BLOCKS[mode]
    blocks = list(vit.blocks)
    windowed = [i for i, block in enumerate(blocks) if block.window_size]
    first = next((block for block in blocks if not block.window_size), blocks[0])
    table = None
    if first.attn.use_rel_pos:
        table = tuple((len(rows) + 1) // 2 for rows in (first.attn.rel_pos_h, first.attn.rel_pos_w))
    positions = vit.pos_embed.shape[1] - int(vit.pretrain_use_cls_token)
    return {
        "block_config": {
            "dim": vit.embed_dim,
            "heads": first.num_heads,
            "mlp_ratio": first.mlp.fc1.out_features // vit.embed_dim,
            "relative_embedding_size": table,
            "window_size": blocks[windowed[0]].window_size if windowed else None,
            "pool_size": first.kv_pool if first.kv_pool > 1 else None,
        },
        "depth": len(blocks),
        "position_encoding_size": (round(positions**0.5),) * 2,
        "input_size": grid,
        "block_class": in_global,
        "windowed_class": in_windows,
        "windowed_overrides": {"pool_size": None},
        "window_indices": windowed,
    }


def _renamed(vit: EventfulViT) -> dict[str, Tensor]:
    """The ViT's weights by the authors' names."""
    names = {ours: theirs for theirs, ours in AUTHORS_BLOCK_PARTS.items()}
    weights = {"position_encoding.encoding": vit.pos_embed.detach()[:, int(vit.pretrain_use_cls_token) :]}
    for i, block in enumerate(vit.blocks):
        for name, value in block.state_dict().items():
            part, _, kind = name.rpartition(".")
            theirs = names[name] if name in names else f"{names[part]}.{kind}"
            weights[f"blocks.{i}.{theirs}"] = value
    return weights


def tokens_of(features: Tensor) -> Tensor:
    """A feature map of `EventfulViT` (B, D, h, w) as tokens (B, N, D)."""
    return features.flatten(2).transpose(1, 2)


def to_frame(image: Tensor, device: torch.device) -> Tensor:
    """An image (C, H, W) of 8 bits as a model's input (1, C, H, W), roughly normalised."""
    return image[None].to(device, torch.float32) / 64 - 2
