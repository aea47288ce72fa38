"""VideoClassifier: action recognition by a factorised ViViT, built from MODEL.VIVIT, MODEL.VIT and MODEL.EVENTFUL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from eventful_vit import FactorisedViViT, Policy
from eventful_vit.models.clip_views import ClipViews
from eventful_vit.models.vivit_names import fit_positions, rename_vivit_weights
from torch import Tensor, nn

from ..contention import fitting_threads
from ..errors import ConfigError
from .backbone import parse_dtype, policy_to_build_with, set_calibrated

OWN_PREFIX = "vivit."


@META_ARCH_REGISTRY.register()
class VideoClassifier(nn.Module):
    """Classifies clips, by one or several heads such as verb and noun.

    An input is a dict with one of
        clip: (T, C, H, W) uint8, RGB frames at MODEL.VIVIT.FPS;
        frames, spans: what `ClipViews.assemble` takes, as the project's loaders give it;
        features: (V, steps, D), kept features of the spatial model (only the temporal model runs).
    In training it also has labels: {head: class}.
    """

    @configurable
    def __init__(self, *, vivit: FactorisedViViT, views: ClipViews, frozen: bool = False) -> None:
        """
        Args:
            views: what is cut from clips.
            frozen: in training, leave embedding and spatial model as they are.
        """
        super().__init__()
        self.vivit = vivit
        self.views = views
        self.frozen = frozen
        if frozen:
            for module in (vivit.embedding, vivit.spatial):
                module.requires_grad_(False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        vivit = cfg.MODEL.VIVIT
        return {"vivit": build_vivit(cfg), "views": build_views(cfg), "frozen": vivit.FREEZE_SPATIAL}

    @property
    def device(self) -> torch.device:
        return self.vivit.embedding.proj.weight.device

    @property
    def heads(self) -> dict[str, int]:
        """Number of classes of each head."""
        return {name: head.out_features for name, head in self.vivit.heads.items()}

    @property
    def enabled(self) -> bool:
        """Whether inference reuses earlier steps; may be changed between any two clips."""
        return self.vivit.enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self.vivit.enabled = value

    def set_policy(self, policy: Policy) -> None:
        """Exchange the policy. Raises ValueError as `EventfulModel.set_policy` does."""
        self.vivit.set_policy(policy)

    def reset(self) -> None:
        """Forget the last clip; every clip does this by itself."""
        self.vivit.reset()

    def train(self, mode: bool = True) -> VideoClassifier:
        """As of any module; a frozen spatial model stays in eval mode, where its gates are on."""
        super().train(mode)
        if self.frozen:
            self.vivit.spatial.eval()
        return self

    def forward(self, batched_inputs: Sequence[Mapping]) -> list[dict] | dict[str, Tensor]:
        """In inference, {"logits": {head: (classes,)}} for every clip; in training, a loss for each head."""
        if self.training:
            return self._losses(batched_inputs)
        with fitting_threads(self.device):
            features = self.features(batched_inputs)
            logits = [self.vivit.classify(clip[None]) for clip in features]
        return [{"logits": {name: values[0] for name, values in clip.items()}} for clip in logits]

    def features(self, batched_inputs: Sequence[Mapping]) -> list[Tensor]:
        """Of every clip, the spatial model's features (V, steps, D)."""
        return [
            clip["features"].to(self.device)
            if "features" in clip
            else self.vivit.spatial_features(self.cut(clip)[None])[0]
            for clip in batched_inputs
        ]

    def cut(self, clip: Mapping) -> Tensor:
        """The views of a clip, (V, frames, C, H, W)."""
        if "clip" in clip:
            return self.views.cut(clip["clip"].to(self.device, non_blocking=True))
        return self.views.assemble(clip["frames"].to(self.device, non_blocking=True), clip["spans"])

    def _losses(self, batched_inputs: Sequence[Mapping]) -> dict[str, Tensor]:
        """The mean cross entropy of each head over the views of all clips."""
        features = self._training_features(batched_inputs)
        clips, views = features.shape[:2]
        logits = self.vivit.classify(features.flatten(0, 1)[:, None])
        losses = {}
        for name, values in logits.items():
            labels = torch.tensor([clip["labels"][name] for clip in batched_inputs], device=values.device)
            losses[f"loss_{name}"] = F.cross_entropy(values, labels.repeat_interleave(views))
        return losses

    def _training_features(self, batched_inputs: Sequence[Mapping]) -> Tensor:
        """(B, V, steps, D)"""
        if "features" in batched_inputs[0]:
            return torch.stack([clip["features"] for clip in batched_inputs]).to(self.device)
        return self.vivit.spatial_features(torch.stack([self.cut(clip) for clip in batched_inputs]))

    def rename_weights(self, weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Weights of a file under this model's names: TAdaConv's, the paper's authors', a FactorisedViViT's or its own.

        Returns them, and what was done, in words.
        """
        inner = {name.removeprefix(OWN_PREFIX): value for name, value in weights.items()}
        renamed, remarks = rename_vivit_weights(inner, list(self.heads))
        resized = fit_positions(renamed, self.vivit.spatial.position_grid)
        known = {name.partition(".")[0] for name, _ in self.vivit.named_parameters()}
        ours = {OWN_PREFIX + name if name.partition(".")[0] in known else name: v for name, v in renamed.items()}
        return ours, remarks + resized


def build_vivit(cfg: CfgNode) -> FactorisedViViT:
    """The model that MODEL.VIVIT, MODEL.VIT and MODEL.EVENTFUL describe. Raises ConfigError, naming the key."""
    vivit, vit, eventful = cfg.MODEL.VIVIT, cfg.MODEL.VIT, cfg.MODEL.EVENTFUL
    if eventful.KV_POOL != 1 or eventful.PYRAMID.ENABLED:
        raise ConfigError("MODEL.EVENTFUL.KV_POOL and PYRAMID belong to detectors; a VideoClassifier has none")
    policy = policy_to_build_with(cfg)
    state_dtype, compute_dtype = parse_dtype(cfg, "STATE_DTYPE"), parse_dtype(cfg, "COMPUTE_DTYPE")
    try:
        model = FactorisedViViT(
            parse_heads(vivit.CLASSES),
            img_size=tuple(vit.IMG_SIZE_HW) or vit.IMG_SIZE,
            frames=vivit.FRAMES,
            tubelet=parse_tubelet(vivit.TUBELET),
            in_chans=len(cfg.MODEL.PIXEL_MEAN),
            embed_dim=vit.EMBED_DIM,
            depth=vit.DEPTH,
            depth_temporal=vivit.DEPTH_TEMPORAL,
            num_heads=vit.NUM_HEADS,
            mlp_ratio=vit.MLP_RATIO,
            dropout=vivit.DROPOUT,
            train_with_gates=vivit.TRAIN_WITH_GATES,
            enabled=eventful.ENABLED,
            policy=policy,
            attention=eventful.ATTENTION,
            gate_before_norm=eventful.GATE_BEFORE_NORM,
            gate_reference=eventful.GATE_REFERENCE,
            state_dtype=state_dtype,
            compute_dtype=compute_dtype,
            gpu_crossover=eventful.GPU_CROSSOVER,
        )
    except ValueError as error:
        raise ConfigError(f"MODEL.VIVIT, MODEL.VIT or MODEL.EVENTFUL: {error}") from error
    set_calibrated(cfg, model.spatial)
    return model


def parse_heads(classes: Iterable[Sequence]) -> dict[str, int]:
    """[[NAME, NUMBER], ...] as {name: number}. Raises ConfigError."""
    heads: dict[str, int] = {}
    for entry in classes:
        if not isinstance(entry, (list, tuple)) or len(entry) != 2 or not isinstance(entry[1], int):
            raise ConfigError(f"CLASSES has {entry!r}; expected [NAME, NUMBER OF CLASSES], such as ['verb', 97]")
        name = str(entry[0])
        if not name.isidentifier() or name in heads or name == "action":
            raise ConfigError(f"CLASSES: {name!r} cannot be the name of a head, or is there twice")
        heads[name] = entry[1]
    return heads


def parse_tubelet(tubelet: Sequence[int]) -> tuple[int, int, int]:
    """(frames, height, width). Raises ConfigError."""
    if len(tubelet) != 3 or min(tubelet) < 1:
        raise ConfigError(f"TUBELET is (frames, height, width), found {tuple(tubelet)}")
    return tuple(tubelet)


def build_views(cfg: CfgNode) -> ClipViews:
    """What MODEL.VIVIT cuts from a clip. Raises ConfigError, naming the key."""
    vivit, vit = cfg.MODEL.VIVIT, cfg.MODEL.VIT
    if cfg.INPUT.FORMAT != "RGB":
        raise ConfigError(f"INPUT.FORMAT = {cfg.INPUT.FORMAT!r}: a VideoClassifier takes 'RGB'")
    size = tuple(vit.IMG_SIZE_HW) or (vit.IMG_SIZE, vit.IMG_SIZE)
    mean, std = ([value / 255 for value in values] for values in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD))
    try:
        return ClipViews(vivit.FRAMES, vivit.STRIDE, size, vivit.VIEWS, vivit.CROPS, mean, std)
    except ValueError as error:
        raise ConfigError(f"MODEL.VIVIT: {error}") from error
