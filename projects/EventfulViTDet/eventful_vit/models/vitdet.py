"""EventfulViT: Detectron2's ViT (ViTDet's backbone) for video, with its parameters and their names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..block import EventfulOptions
from ..encoder import EventfulEncoder
from ..frame import FrameTrace
from ..gate import GateReference
from ..gated_training import TrainingGates
from ..layers import is_plain
from ..model import EventfulModel, not_compiled
from ..ops import tape
from ..ops.derived import derive_or_differentiate
from ..policies import Policy, TopR
from ..streams import FrameForm, Streams
from .vitdet_layers import LAYER_NORM, Block, PatchEmbed


class EventfulViT(EventfulModel):
    """A Vision Transformer for video that recomputes only the tokens that changed.

    Parameters and their names are those of Detectron2's `ViT`, so its checkpoints load unchanged. The first frame of a
    stream is a *flush*: computed in full, equal to the dense model.

    Example:
        >>> vit = EventfulViT(img_size=64, embed_dim=48, depth=2, num_heads=3, policy=TopR(8)).eval()
        >>> features = [vit(frame)["last_feat"] for frame in torch.rand(5, 1, 3, 64, 64)]
        >>> vit.reset()
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 1024,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        use_abs_pos: bool = True,
        use_rel_pos: bool = False,
        window_size: int = 0,
        window_block_indexes: Iterable[int] = (),
        pretrain_img_size: int = 224,
        pretrain_use_cls_token: bool = True,
        out_feature: str = "last_feat",
        *,
        norm_layer: Callable[[int], nn.Module] = LAYER_NORM,
        act_layer: type[nn.Module] = nn.GELU,
        rel_pos_zero_init: bool = True,
        rel_pos_img_size: int = 0,
        rel_pos_resize: str = "table",
        residual_block_indexes: Iterable[int] = (),
        use_act_checkpoint: bool = False,
        enabled: bool = True,
        policy: Policy | None = None,
        attention: str = "exact",
        gate_before_norm: bool = False,
        gate_reference: GateReference = "last-sent",
        kv_pool: int = 1,
        state_dtype: torch.dtype | None = None,
        compute_dtype: torch.dtype | None = None,
        gpu_crossover: float | None = None,
    ) -> None:
        """
        Args:
            img_size: side, or (H, W), in pixels, that the position tables of global blocks are made for.
            pretrain_img_size: side in pixels of the square grid of absolute positions; resized to each frame's grid.
            pretrain_use_cls_token: the absolute positions begin with one for a class token, which is dropped.
            rel_pos_img_size: side in pixels that global blocks' tables of relative positions are for; 0: img_size.
            rel_pos_resize: what is resized of these for frames of another size: the "table", linearly, as Detectron2
                does; or the "matrix" of all pairs, bicubically, as the paper's code does.
            residual_block_indexes: blocks with a bottleneck of convolutions behind them, computed in every frame.
            use_act_checkpoint: in training, recompute a block's activations in the backward pass.
            enabled: take the eventful path in eval mode; may be changed at any time.
            policy: which tokens to update; a quarter of the tokens (top-r) by default.
            attention: "exact" (dense attention's result, incrementally), or for comparison one of the paper's modes.
            kv_pool: average-pool keys and values of global blocks over this many tokens per side. Part of the
                network: the dense path pools too.
            state_dtype: storage type of references, buffers and attention state; None keeps that of the tokens.
            compute_dtype: type of the products of the linear layers and of the patch embedding in inference, dense or
                eventful; None is that of the parameters. Tokens, norms, softmax and the sums of attention keep theirs.

        See `EventfulOptions` for the remaining options.
        """
        if not 0 <= drop_path_rate < 1:  # NaN fails this too
            raise ValueError(f"drop_path_rate must be from 0 to below 1, found {drop_path_rate!r}")
        grid = _grid_of("img_size", img_size, patch_size)
        table_grid = _grid_of("rel_pos_img_size", rel_pos_img_size, patch_size) if rel_pos_img_size else grid
        super().__init__(enabled)
        self.patch_size = patch_size
        self.embed_dim = embed_dim
        self.out_feature = out_feature
        self.use_act_checkpoint = use_act_checkpoint
        self.compute_dtype = compute_dtype
        self.pretrain_use_cls_token = pretrain_use_cls_token
        self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim, compute_dtype)
        positions = (pretrain_img_size // patch_size) ** 2 + int(pretrain_use_cls_token)
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, embed_dim)) if use_abs_pos else None
        windowed, residual = frozenset(window_block_indexes), frozenset(residual_block_indexes)
        self.blocks = nn.ModuleList(
            Block(
                embed_dim,
                num_heads,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                drop_path=drop_path_rate * i / max(depth - 1, 1),
                norm_layer=norm_layer,
                act_layer=act_layer,
                use_rel_pos=use_rel_pos,
                rel_pos_zero_init=rel_pos_zero_init,
                window_size=window_size if i in windowed else 0,
                use_residual_block=i in residual,
                input_size=table_grid,
                kv_pool=kv_pool,
                rel_pos_resize=rel_pos_resize,
            )
            for i in range(depth)
        )
        options = EventfulOptions(
            attention, gate_before_norm, gate_reference, state_dtype, compute_dtype, gpu_crossover
        )
        self._options = options
        self._encoder = EventfulEncoder(depth, options)
        self._training_gates: TrainingGates | None = None
        self.set_policy(TopR(grid[0] * grid[1] // 4) if policy is None else policy)
        self._initialise()

    def _initialise(self) -> None:
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @property
    def gate_names(self) -> tuple[str, ...]:
        return self._encoder.gate_names

    @contextmanager
    def training_clip(self) -> Iterator[None]:
        """Within it, frames in training mode are those of running streams: with the features of inference on changed
        tokens, at the policy of now, and with gradients into all frames (gated_training.py). The first one is computed
        in full. Activations are not recomputed, whatever `use_act_checkpoint` says.

        Raises ValueError as `TrainingGates` does; so do frames within it of a model with stochastic depth.
        """
        self._training_gates = TrainingGates(self.policy, self._options)
        try:
            yield
        finally:
            self._training_gates = None

    def _needs_earlier_frames(self) -> bool:
        return super()._needs_earlier_frames() or self._training_gates is not None

    def forward(self, images: Tensor, state: Streams | None = None) -> dict[str, Tensor]:
        """Features of one frame per stream.

        Args:
            images: normalised frames, (B, C, H, W), with H and W multiples of the patch size.
            state: what was kept of these streams; None: the model's own. The dense model has none.

        Returns:
            Maps (B, D, H / patch, W / patch) by name; there is one, `out_feature`.

        Raises:
            ValueError: frames that the model cannot take, or that do not fit a running stream. The state is as it was
                before the call.
        """
        grid = self._check_images(images)
        images = images.to(self.patch_embed.proj.weight.dtype)  # under autocast they may be of another type
        if self.training or not self.enabled:
            x = self._forward_dense(images, grid)
        else:
            x = self._forward_eventful(images, grid, state)
        return {self.out_feature: x.transpose(1, 2).unflatten(2, grid)}

    def _check_images(self, images: Tensor) -> tuple[int, int]:
        """The token grid of some frames."""
        weight = self.patch_embed.proj.weight
        channels, patch = weight.shape[1], self.patch_size
        if images.dim() != 4 or images.shape[1] != channels or not len(images):
            raise ValueError(f"frames (B, {channels}, H, W) with B of 1 or more are needed, got {tuple(images.shape)}")
        if images.dtype != weight.dtype and not (_autocasts(images) and images.is_floating_point()):
            raise ValueError(f"normalised frames of {weight.dtype} are needed, as the weights are, got {images.dtype}")
        height, width = images.shape[-2:]
        if height % patch or width % patch or not height or not width:
            raise ValueError(f"frame of {height} x {width} pixels is not a multiple of patch_size = {patch}")
        return height // patch, width // patch

    def _forward_dense(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        trace = FrameTrace((True,) * len(images), grid) if self.observers else None
        if trace is not None:
            self._note_embedding(trace)
        if self.training and self._training_gates is not None:
            x = self._encoder.dense(self._training_gates.blocks(self.blocks), self._embed(images, grid), grid, trace)
        elif self.training and self.use_act_checkpoint:
            x = self._embed(images, grid)
            x = checkpoint(self._encoder.dense, self.blocks, x, grid, trace, use_reentrant=False)
        else:
            x = self._run_dense(images, grid, trace, partial(self._dense_tokens, grid))
        if trace is not None:
            self.report(trace)
        return x

    def _dense_tokens(self, grid: tuple[int, int], images: Tensor, trace: FrameTrace | None) -> Tensor:
        return self._encoder.dense(self.blocks, self._embed(images, grid), grid, trace)

    @not_compiled
    def _forward_eventful(self, images: Tensor, grid: tuple[int, int], state: Streams | None) -> Tensor:
        form = FrameForm(grid, images.dtype, images.device)
        return self._run_frame(images, form, state, partial(self._embed, grid=grid), self._note_embedding)

    def _note_embedding(self, trace: FrameTrace) -> None:
        tokens = trace.grid[0] * trace.grid[1]
        trace.add_layer("embedding", self.patch_embed.proj.weight.numel(), tokens)
        if self.pos_embed is not None:
            trace.add_layer("add", self.embed_dim, tokens)

    def _embed(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens with their positions, (B, N, D)."""
        if not (is_plain(self.patch_embed, PatchEmbed) and is_plain(self.patch_embed.proj, nn.Conv2d)):
            tape.refuse("the patch embedding may run other code")
        return self.patch_embed(images, None if self.pos_embed is None else self._positions(grid))

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """Absolute positions (1, N, D) for a grid; resized ones are kept in inference."""
        return derive_or_differentiate(
            self.pos_embed,
            ("positions", grid),
            lambda positions: resize_positions(positions, self.pretrain_use_cls_token, grid),
        )


def _grid_of(name: str, size: int | tuple[int, int], patch: int) -> tuple[int, int]:
    """The token grid (h, w) of a size in pixels: a side, or (H, W). Raises ValueError, naming it, if none fits."""
    height, width = (size, size) if isinstance(size, int) else size
    if height % patch or width % patch:
        raise ValueError(f"{name} {height} x {width} is not a multiple of patch_size = {patch}")
    return height // patch, width // patch


def _autocasts(x: Tensor) -> bool:
    return torch.is_autocast_enabled(x.device.type)


def resize_positions(positions: Tensor, has_cls_token: bool, grid: tuple[int, int]) -> Tensor:
    """Absolute positions of a square grid (1, [1 +] g * g, D), resized bicubically to (1, h * w, D)."""
    if has_cls_token:
        positions = positions[:, 1:]
    side = math.isqrt(positions.shape[1])
    return resize_grid(positions, (side, side), grid)


def resize_grid(positions: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Values of a grid of tokens, (1, h * w, D), resized bicubically to another grid."""
    if source == target:
        return positions
    maps = positions.unflatten(1, source).permute(0, 3, 1, 2)
    resized = F.interpolate(maps, size=target, mode="bicubic", align_corners=False)
    return resized.flatten(2).transpose(1, 2)
