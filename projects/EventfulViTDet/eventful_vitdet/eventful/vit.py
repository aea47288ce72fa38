"""EventfulViT: ViTDet's plain backbone with an eventful path over the same weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention.position import parameter_stamp
from .block import Block, EventfulOptions
from .counting import CountsOperations, each
from .gate import GateReference, TokenGate
from .graphs import FrameGraphs
from .kernels import native
from .native_frame import NativeFrames
from .policies import Policy, TopR
from .step import Step


class PatchEmbed(nn.Module):
    """Patches to tokens by one strided convolution: (B, C, H, W) -> (B, h * w, D)."""

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)
        self._packed = native.PackedWeights()

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float32 and native.readable(*self.proj.parameters()) and native.usable(x, self.proj.weight):
            # Patches do not overlap: each is one row of a matrix product.
            size = self.proj.kernel_size[0]
            patches = x.unflatten(3, (-1, size)).unflatten(2, (-1, size)).permute(0, 2, 4, 1, 3, 5)
            weights = self._packed.of(self.proj.weight)
            return native.linear(patches.flatten(3).flatten(1, 2), weights, self.proj.out_channels, self.proj.bias)
        return self.proj(x).flatten(2).transpose(1, 2)

    def _apply(self, *args, **kwargs) -> nn.Module:
        self._packed.clear()  # moved to another device or type: do not keep the old copy alive
        return super()._apply(*args, **kwargs)


class EventfulViT(CountsOperations):
    """A Vision Transformer for video that recomputes only the tokens that changed.

    Parameters and their names are those of Detectron2's `ViT`, so its checkpoints load unchanged. In training mode, and
    with `enabled = False`, it is that dense model. In eval mode with `enabled = True` every position of the batch
    is a *stream*: a video whose frames arrive in order, one per call, until `reset`.

    The first frame of a stream is a *flush*: computed in full, equal to the dense model.

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
        enabled: bool = True,
        policy: Policy | None = None,
        attention: str = "exact",
        gate_before_norm: bool = False,
        gate_reference: GateReference = "last-sent",
        kv_pool: int = 1,
        state_dtype: torch.dtype | None = None,
        compute_dtype: torch.dtype | None = None,
        cuda_graphs: bool = False,
    ) -> None:
        """
        Args:
            img_size: side, or (H, W), in pixels, that the position tables of global blocks are made for.
            pretrain_img_size: side in pixels of the square grid of absolute positions; resized to each frame's grid.
            pretrain_use_cls_token: the absolute positions begin with one for a class token, which is dropped.
            enabled: take the eventful path in eval mode; may be changed at any time.
            policy: which tokens to update; a quarter of the tokens (top-r) by default.
            attention: "exact" (dense attention's result, incrementally), or for comparison one of the paper's modes.
            kv_pool: average-pool keys and values of global blocks over this many tokens per side. Part of the
                network: the dense path pools too.
            state_dtype: storage type of references, buffers and attention state; None keeps that of the tokens.
            compute_dtype: type of the linear layers' products in inference, dense or eventful; None is that of the
                parameters. Tokens, norms, softmax and the sums of attention keep theirs.
            cuda_graphs: on a GPU and with a fixed budget, record a frame's operations once and replay them.

        See `EventfulOptions` for the remaining options.
        """
        super().__init__()
        options = EventfulOptions(attention, gate_before_norm, gate_reference, state_dtype, compute_dtype)
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if height % patch_size or width % patch_size:
            raise ValueError(f"img_size {height} x {width} is not a multiple of patch_size = {patch_size}")
        grid = (height // patch_size, width // patch_size)
        self.patch_size = patch_size
        self.embed_dim = embed_dim
        self.out_feature = out_feature
        self.enabled = enabled
        self.pretrain_use_cls_token = pretrain_use_cls_token
        self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim)
        positions = (pretrain_img_size // patch_size) ** 2 + int(pretrain_use_cls_token)
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, embed_dim)) if use_abs_pos else None
        windowed = frozenset(window_block_indexes)
        self.blocks = nn.ModuleList(
            Block(
                f"blocks.{i}",
                embed_dim,
                num_heads,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                drop_path_rate=drop_path_rate * i / max(depth - 1, 1),
                use_rel_pos=use_rel_pos,
                window_size=window_size if i in windowed else 0,
                kv_pool=kv_pool,
                token_grid=grid,
                options=options,
            )
            for i in range(depth)
        )
        self._initialise()
        self.set_policy(TopR(grid[0] * grid[1] // 4) if policy is None else policy)
        self._live: list[bool] = []
        self._capacity = 0  # streams that there is state for
        if cuda_graphs and kv_pool > 1:
            raise ValueError("cuda_graphs do not go with kv_pool > 1: how many pooled keys change depends on the frame")
        self._graphs = FrameGraphs(self._compute, self.gates) if cuda_graphs else None
        self._native = NativeFrames(self.blocks)
        self._form: tuple[tuple[int, int], torch.device, torch.dtype] | None = None
        self._position_cache: tuple[tuple, Tensor] | None = None
        self.flushed: tuple[bool, ...] = ()
        """For each stream of the last eventful frame, whether it was computed in full."""

    def _initialise(self) -> None:
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    # Streams and their state.

    def set_policy(self, policy: Policy) -> None:
        """Exchange the policy; it decides from the next frame on, without a flush."""
        if not isinstance(policy, Policy):
            raise TypeError(f"a policy such as TopR(256) is needed, got {policy!r}")
        self.policy = policy

    def reset(self, streams: Sequence[int] | None = None) -> None:
        """Forget the past: the next frame of these streams (positions in the batch), or of all, is a flush.

        The state's memory is kept for the next video; `release` frees it.
        """
        if streams is None:
            self._live = []
        for stream in streams or ():
            if stream < 0:
                raise ValueError(f"a stream is a position in the batch, got {stream}")
            if stream < len(self._live):
                self._live[stream] = False

    def release(self) -> None:
        """Free the state of all streams, whose next frame is a flush."""
        self._live = []
        self._capacity = 0
        self._forget_memory()
        for block in self.blocks:
            block.clear()

    def state_bytes(self) -> int:
        """Bytes of state held for all streams."""
        return sum(block.state_bytes() for block in self.blocks)

    def gates(self) -> dict[str, TokenGate]:
        """All gates by name, such as `blocks.0.qkv`."""
        return {
            f"blocks.{i}.{name}": gate for i, block in enumerate(self.blocks) for name, gate in block.gates().items()
        }

    # Forward passes.

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Features of one frame per stream.

        Args:
            images: normalised frames, (B, C, H, W), with H and W multiples of the patch size.

        Returns:
            {out_feature: (B, D, H / patch, W / patch)}

        Raises:
            ValueError: a size that does not fit the patches or a running stream, or values that are not finite.
                The state is as it was before the call.
        """
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"frame of {height} x {width} pixels is not a multiple of patch_size = {self.patch_size}")
        grid = (height // self.patch_size, width // self.patch_size)
        if self.training or not self.enabled:
            x = self._forward_dense(images, grid)
        else:
            x = self._forward_eventful(images, grid)
        return {self.out_feature: x.transpose(1, 2).unflatten(2, grid)}

    def _forward_dense(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        step = Step(self.policy, (True,) * images.shape[0], self.counts)
        x = self._embed(images, grid, step)
        for block in self.blocks:
            x = block(x, grid, step)
        return x

    # State outlives the call, so it must not be made of inference tensors, which a later call outside of inference
    # mode could not update.
    @torch.inference_mode(False)
    @torch.no_grad()
    def _forward_eventful(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        self._check_frame(images, grid)
        streams = images.shape[0]
        live = (self._live + [False] * streams)[:streams]
        step = Step(self.policy, tuple(not alive for alive in live), self.counts)
        # An interrupted frame leaves half of the state behind: these streams are live again only at its end.
        self._live[:streams] = [False] * streams
        if self._graphs is not None and self._graphs.suit(images, grid[0] * grid[1], step):
            parameters = tuple((p.data_ptr(), p._version) for p in self._parameters_in_order())
            x, step = self._graphs.run(images, grid[0] * grid[1], step, parameters)
        else:
            x = self._compute(images, step)
        self._live[:streams] = [True] * streams
        self.flushed = step.flush
        return x

    def _compute(self, images: Tensor, step: Step) -> Tensor:
        """The eventful path from images (B, C, H, W) to tokens (B, N, D), updating all state."""
        if len(images) > self._capacity:
            self._capacity = len(images)
            self._forget_memory()  # the state is about to get more
        grid = (images.shape[2] // self.patch_size, images.shape[3] // self.patch_size)
        x = self._embed(images, grid, step).contiguous()
        if self._native.suits(x, step):
            return self._native.run(x, grid, step)
        for block in self.blocks:
            x = block.forward_eventful(x, grid, step)
        return x

    def _parameters_in_order(self) -> list[nn.Parameter]:
        outside = (self.patch_embed.proj.weight, self.patch_embed.proj.bias, self.pos_embed)
        inside = (parameter for block in self.blocks for parameter in block.parameters_in_order())
        return [parameter for parameter in (*outside, *inside) if parameter is not None]

    def _forget_memory(self) -> None:
        """What relies on where the state lies has to be made anew."""
        self._native.clear()
        if self._graphs is not None:
            self._graphs.clear()

    def _check_frame(self, images: Tensor, grid: tuple[int, int]) -> None:
        form = (grid, images.device, images.dtype)
        if self._form is not None and any(self._live) and grid != self._form[0]:
            raise ValueError(
                f"the running streams have {self._form[0][0]} x {self._form[0][1]} tokens and this frame "
                f"{grid[0]} x {grid[1]}; call reset() before a video of another size"
            )
        # A sum is finite where all its terms are: one pass, and hardly any memory.
        finite = torch.isfinite(images.sum(dim=(1, 2, 3)))
        if not bool(finite.all()):
            bad = (~finite).nonzero().flatten().tolist()
            raise ValueError(f"NaN or infinity in the frame of stream {', '.join(map(str, bad))}; no state was changed")
        if form != self._form:
            self.release()
        self._form = form

    # Embedding.

    def _embed(self, images: Tensor, grid: tuple[int, int], step: Step) -> Tensor:
        x = self.patch_embed(images)
        proj, streams, tokens = self.patch_embed.proj, images.shape[0], grid[0] * grid[1]
        step.count("embedding", each(streams, tokens * self.embed_dim * proj.weight[0].numel()))
        if self.pos_embed is None:
            return x
        step.count("add", each(streams, tokens * self.embed_dim))
        return x + self._positions(grid)

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """Absolute positions (1, N, D) for a grid; the resized ones are kept while the parameter stays as it is."""
        if torch.is_grad_enabled():
            return resize_positions(self.pos_embed, self.pretrain_use_cls_token, grid)
        key = (grid, parameter_stamp(self.pos_embed))
        if self._position_cache is None or self._position_cache[0] != key:
            self._position_cache = key, resize_positions(self.pos_embed, self.pretrain_use_cls_token, grid)
        return self._position_cache[1]


def resize_positions(positions: Tensor, has_cls_token: bool, grid: tuple[int, int]) -> Tensor:
    """Absolute positions of a square grid (1, [1 +] g * g, D), resized bicubically to (1, h * w, D)."""
    if has_cls_token:
        positions = positions[:, 1:]
    side = math.isqrt(positions.shape[1])
    if (side, side) == grid:
        return positions
    square = positions.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
    return resized.flatten(2).transpose(1, 2)
