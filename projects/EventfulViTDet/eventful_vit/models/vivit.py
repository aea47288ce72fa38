"""FactorisedViViT: action recognition by an eventful spatial Transformer and a small dense temporal one.

A clip is seen as several *views*, crops of spans of it. A view is a sequence of *steps*: each step is a grid of
tubelets (patches over a few frames). The spatial model turns a step into one vector, recomputing only the tokens that
changed since the step before; the temporal model turns the vectors of a view into one, which heads classify.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..block import BlockSpec, EventfulOptions
from ..encoder import EventfulEncoder
from ..frame import FrameTrace
from ..gate import GateReference
from ..gated_training import TrainingGates
from ..model import EventfulModel, Traced, not_compiled
from ..ops.derived import derive_or_differentiate
from ..policies import Policy, TopR
from ..streams import FrameForm, Streams
from .vitdet import resize_grid
from .vitdet_layers import LAYER_NORM, Block

Grid = tuple[int, int]


class TubeletEmbed(nn.Module):
    """Tubelets to tokens by one strided convolution: (B, C, T, H, W) -> (B, steps, N, D)."""

    def __init__(self, tubelet: tuple[int, int, int], in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(in_chans, embed_dim, kernel_size=tubelet, stride=tubelet)

    def forward(self, clips: Tensor) -> Tensor:
        return self.proj(clips).flatten(3).permute(0, 2, 3, 1).contiguous()


class ClassTokenBlock(Block):
    """A plain ViT block whose first token is a class token. Gates treat it as any other."""

    def specification(self) -> BlockSpec:
        return replace(super().specification(), prefix=1)


class ClassTokenViT(EventfulModel):
    """A plain ViT from tokens (B, N, D) to the class token (B, D).

    With `enabled`, a position of the batch is a stream of steps, of which only changed tokens are recomputed.
    """

    def __init__(
        self,
        embed_dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        position_grid: Grid,
        *,
        enabled: bool,
        policy: Policy | None = None,
        options: EventfulOptions | None = None,
    ) -> None:
        """
        Args:
            position_grid: tokens (h, w) that positions are made for; resized to the grid of each step.
            policy: which tokens to update; a quarter of them (top-r) by default.
        """
        super().__init__(enabled)
        tokens = position_grid[0] * position_grid[1]
        self.position_grid = tuple(position_grid)
        self.class_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + tokens, embed_dim))
        self.blocks = nn.ModuleList(ClassTokenBlock(embed_dim, num_heads, mlp_ratio) for _ in range(depth))
        self.norm = LAYER_NORM(embed_dim)
        self._options = options or EventfulOptions()
        self._encoder = EventfulEncoder(depth, self._options)
        self.set_policy(TopR((1 + tokens) // 4) if policy is None else policy)

    @property
    def gate_names(self) -> tuple[str, ...]:
        return self._encoder.gate_names

    def forward(self, tokens: Tensor, grid: Grid, state: Streams | None = None) -> Tensor:
        """The class token of one step per stream, normalised.

        Args:
            tokens: (B, h * w, D), without class token and positions.
            grid: (h, w).
            state: what was kept of these streams; None: the model's own. The dense model has none.

        Returns:
            (B, D)

        Raises:
            ValueError: tokens that are not finite, or do not fit a running stream; the state is as it was.
        """
        if self.training or not self.enabled:
            x = self._forward_dense(tokens, grid)
        else:
            x = self._forward_eventful(tokens, grid, state)
        return self.norm(x[:, 0])

    def _forward_dense(self, tokens: Tensor, grid: Grid) -> Tensor:
        trace = FrameTrace((True,) * len(tokens), grid) if self.observers else None
        if trace is not None:
            self._note_positions(trace)
        x = self._run_dense(tokens, grid, trace, partial(self._dense_tokens, grid))
        if trace is not None:
            self.report(trace)
        return x

    def _dense_tokens(self, grid: Grid, tokens: Tensor, trace: FrameTrace | None) -> Tensor:
        return self._encoder.dense(self.blocks, self._with_positions(tokens, grid), grid, trace)

    def new_training_gates(self) -> TrainingGates:
        """The gates of a sequence of `gated` steps, at the policy of now."""
        return TrainingGates(self.policy, self._options)

    def gated(self, tokens: Tensor, grid: Grid, gates: TrainingGates) -> Tensor:
        """As `forward` on changed tokens, computed densely and with gradients: (B, N, D) -> (B, D)."""
        x = self._with_positions(tokens, grid)
        x = self._encoder.dense(gates.blocks(self.blocks), x, grid, None)
        return self.norm(x[:, 0])

    @not_compiled
    def _forward_eventful(self, tokens: Tensor, grid: Grid, state: Streams | None) -> Tensor:
        form = FrameForm(grid, tokens.dtype, tokens.device, prefix=1)
        return self._run_frame(tokens, form, state, partial(self._with_positions, grid=grid), self._note_positions)

    def _note_positions(self, trace: FrameTrace) -> None:
        trace.add_layer("add", self.class_token.shape[-1], 1 + trace.grid[0] * trace.grid[1])

    def _with_positions(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Class token and tokens with their positions, (B, 1 + N, D)."""
        x = torch.cat([self.class_token.expand(len(tokens), -1, -1).to(tokens.dtype), tokens], dim=1)
        return x + self._positions(grid)

    def _positions(self, grid: Grid) -> Tensor:
        """Positions (1, 1 + N, D) for a grid; resized ones are kept in inference."""
        if grid == self.position_grid:
            return self.pos_embed
        return derive_or_differentiate(
            self.pos_embed,
            ("class positions", grid),
            lambda positions: resize_class_positions(positions, self.position_grid, grid),
        )


def resize_class_positions(positions: Tensor, source: Grid, target: Grid) -> Tensor:
    """Positions of a class token and a grid, (1, 1 + N, D); those of the grid are resized bicubically."""
    return torch.cat([positions[:, :1], resize_grid(positions[:, 1:], source, target)], dim=1)


class FactorisedViViT(Traced):
    """A ViViT with factorised encoder (ViViT model 2) whose spatial model is eventful.

    Views are streams of the spatial model; nothing is carried from one clip to the next.

    Example:
        >>> vivit = FactorisedViViT({"verb": 97, "noun": 300}, policy=TopR(100)).eval()
        >>> logits = vivit(torch.rand(1, 12, 32, 3, 320, 320))  # a clip of twelve views
        >>> logits["verb"].shape
        torch.Size([1, 97])
    """

    def __init__(
        self,
        heads: Mapping[str, int],
        img_size: int | Grid = 320,
        frames: int = 32,
        tubelet: tuple[int, int, int] = (2, 16, 16),
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        depth_temporal: int = 4,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        *,
        position_grid: Grid | None = None,
        dropout: float = 0.0,
        train_with_gates: bool = False,
        enabled: bool = True,
        policy: Policy | None = None,
        attention: str = "exact",
        gate_before_norm: bool = False,
        gate_reference: GateReference = "last-sent",
        state_dtype: torch.dtype | None = None,
        compute_dtype: torch.dtype | None = None,
        gpu_crossover: float | None = None,
    ) -> None:
        """
        Args:
            heads: number of classes of each classifier, such as {"verb": 97, "noun": 300}.
            img_size: side, or (H, W), of a view in pixels.
            frames: frames of a view.
            tubelet: (frames, height, width) of a tubelet.
            position_grid: tokens (h, w) that spatial positions are made for; None: the grid of `img_size`.
            dropout: before the classifiers, in training.
            train_with_gates: in training, let the spatial model see in each step what its gates would send on
                (gated_training.py); otherwise it is trained densely.

        See `EventfulOptions` for attention, gates and types.
        """
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if not heads or min(heads.values()) < 1:
            raise ValueError(f"heads of one class or more are needed, got {dict(heads)}")
        for name, size, unit in (("frames", frames, 0), ("img_size", height, 1), ("img_size", width, 2)):
            if size < 1 or size % tubelet[unit]:
                raise ValueError(f"{name} = {size} is not a multiple of the tubelet's {tubelet[unit]}")
        super().__init__()
        self.train_with_gates = train_with_gates
        self.img_size, self.frames, self.tubelet = (height, width), frames, tuple(tubelet)
        grid = (height // tubelet[1], width // tubelet[2])
        self.embedding = TubeletEmbed(self.tubelet, in_chans, embed_dim)
        options = EventfulOptions(
            attention, gate_before_norm, gate_reference, state_dtype, compute_dtype, gpu_crossover
        )
        self.spatial = ClassTokenViT(
            embed_dim,
            depth,
            num_heads,
            mlp_ratio,
            position_grid or grid,
            enabled=enabled,
            policy=policy,
            options=options,
        )
        self.temporal = ClassTokenViT(embed_dim, depth_temporal, num_heads, mlp_ratio, (self.steps, 1), enabled=False)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleDict({name: nn.Linear(embed_dim, classes) for name, classes in heads.items()})
        self._initialise()

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith(("pos_embed", "class_token")):
                nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    @property
    def steps(self) -> int:
        """Steps of a view."""
        return self.frames // self.tubelet[0]

    # The spatial model's switches.

    @property
    def enabled(self) -> bool:
        """Whether the spatial model reuses earlier steps in inference."""
        return self.spatial.enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self.spatial.enabled = value

    @property
    def policy(self) -> Policy:
        """Which tokens the spatial model updates."""
        return self.spatial.policy

    def set_policy(self, policy: Policy) -> None:
        """Exchange the spatial model's policy. Raises ValueError as `EventfulModel.set_policy` does."""
        self.spatial.set_policy(policy)

    def reset(self) -> None:
        """Forget the steps of the last clip. `spatial_features` does it by itself."""
        self.spatial.reset()

    # From views to classes.

    def forward(self, views: Tensor) -> dict[str, Tensor]:
        """Classify clips.

        Args:
            views: normalised, (B, V, frames, C, H, W).

        Returns:
            By head, the mean of the views' logits, (B, classes).
        """
        return self.classify(self.spatial_features(views))

    def spatial_features(self, views: Tensor) -> Tensor:
        """Features of every step: (B, V, frames, C, H, W) -> (B, V, steps, D). All views begin with a flush."""
        self._check_views(views)
        self.spatial.reset()
        parts = views.flatten(0, 1).split(self.tubelet[0], dim=1)
        if self.spatial.training and self.train_with_gates and self.enabled:
            gates = self.spatial.new_training_gates()
            steps = [self.spatial.gated(*self._tokens(part), gates) for part in parts]
        else:
            steps = [self.step_features(part) for part in parts]
        return torch.stack(steps, dim=1).unflatten(0, views.shape[:2])

    def step_features(self, frames: Tensor, state: Streams | None = None) -> Tensor:
        """The next step of running streams: frames of one tubelet (B, t, C, H, W) -> (B, D).

        Args:
            state: what was kept of these streams; None: the spatial model's own.
        """
        tokens, grid = self._tokens(frames)
        self._report_layer("embedding", self.embedding.proj.weight.numel(), tokens.shape[1], len(frames), grid)
        return self.spatial(tokens, grid, state)

    def _tokens(self, frames: Tensor) -> tuple[Tensor, Grid]:
        """Frames of one tubelet (B, t, C, H, W) as tokens (B, h * w, D), and (h, w)."""
        grid = (frames.shape[-2] // self.tubelet[1], frames.shape[-1] // self.tubelet[2])
        return self.embedding(frames.transpose(1, 2)).squeeze(1), grid

    def classify(self, features: Tensor) -> dict[str, Tensor]:
        """Features (B, V, steps, D) to the mean of the views' logits by head, (B, classes)."""
        views = features.flatten(0, 1)
        if views.shape[1] != self.steps:
            raise ValueError(f"the temporal model takes {self.steps} steps per view, got {views.shape[1]}")
        summary = self.dropout(self.temporal(views, (self.steps, 1)))
        for head in self.heads.values():
            self._report_layer("heads", head.weight.numel() + head.bias.numel(), 1, len(views), (1, 1))
        return {name: head(summary).unflatten(0, features.shape[:2]).mean(dim=1) for name, head in self.heads.items()}

    def _check_views(self, views: Tensor) -> None:
        expected = (self.frames, self.embedding.proj.in_channels)
        if views.dim() != 6 or not views.shape[0] * views.shape[1] or views.shape[2:4] != expected:
            raise ValueError(f"views (B, V, {expected[0]}, {expected[1]}, H, W) are needed, got {tuple(views.shape)}")
        for side, unit in zip(views.shape[-2:], self.tubelet[1:]):
            if side % unit or not side:
                raise ValueError(
                    f"views of {views.shape[-2]} x {views.shape[-1]} pixels are no multiple of the tubelet's "
                    f"{self.tubelet[1]} x {self.tubelet[2]}"
                )

    def _report_layer(self, category: str, macs: int, units: int, streams: int, grid: Grid) -> None:
        if self.observers:
            trace = FrameTrace((True,) * streams, grid)
            trace.add_layer(category, macs, units)
            self.report(trace)


def probabilities(logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Softmax of each head's logits."""
    return {name: F.softmax(values, dim=-1) for name, values in logits.items()}
