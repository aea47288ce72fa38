"""Small models and videos that many tests use."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import torch
from eventful_vit import EventfulViT

# A few float32 roundings of values around 1, as between two orders of the same sums.
CLOSE = {"atol": 2e-5, "rtol": 1e-4}


def make_vit(img_size=(40, 56), **options) -> EventfulViT:
    """A small model on a rectangular grid of 5 x 7 tokens, with padded windows of 3."""
    torch.manual_seed(1)
    settings = {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2, "window_size": 3}
    settings.update(window_block_indexes=[0], use_rel_pos=True, pretrain_img_size=32)
    vit = EventfulViT(img_size, **{**settings, **options})
    randomise(vit)
    return vit.eval()


@torch.no_grad()
def randomise(vit: EventfulViT) -> None:
    for name, parameter in vit.named_parameters():
        parameter.normal_(std=0.3 if "rel_pos" in name or "norm" in name else 0.15)


def make_video(frames: int, seed: int = 0, size=(40, 56)) -> torch.Tensor:
    """A still background with a patch that changes, (T, 3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    video = torch.randn(3, *size, generator=generator).repeat(frames, 1, 1, 1)
    for t in range(1, frames):
        video[t:, :, 8:24, 8 * (t % 4) : 8 * (t % 4) + 16] += 0.5 * torch.randn(3, 16, 16, generator=generator)
    return video


def run(vit: EventfulViT, video: torch.Tensor, state=None) -> torch.Tensor:
    """Features of all frames of one stream, (T, D, h, w)."""
    return torch.stack([vit(frame[None], state)["last_feat"][0] for frame in video])


def run_in_threads(vit: EventfulViT, videos: list[torch.Tensor]) -> list[torch.Tensor]:
    """The same of several videos at the same time, each in a thread, with a state of its own."""
    with ThreadPoolExecutor(len(videos)) as threads:
        return list(threads.map(lambda video: run(vit, video, vit.new_state()), videos))


def expected_of(vit: EventfulViT, video: torch.Tensor) -> torch.Tensor:
    """The same, of a new stream, without recordings: what the operators compute one by one."""
    twin, outputs = copy.deepcopy(vit), []
    for frame in video:
        twin.state.recorded.clear()
        outputs.append(twin(frame[None])["last_feat"][0])
    return torch.stack(outputs)


def dense(vit: EventfulViT, video: torch.Tensor) -> torch.Tensor:
    vit.enabled = False
    with torch.no_grad():
        out = run(vit, video)
    vit.enabled = True
    return out


def dense_of(vit: EventfulViT, frames: torch.Tensor, enabled: bool | None = None) -> torch.Tensor:
    """`run` without gradients, of the model as it is, or from now on dense or eventful."""
    vit.enabled = vit.enabled if enabled is None else enabled
    with torch.no_grad():
        return run(vit, frames)


def flushed(vit: EventfulViT) -> tuple[bool, ...]:
    return vit.state.trace.flushed


def selected(vit: EventfulViT) -> list[tuple[int, ...]]:
    """How many tokens of each stream every gate selected in the last frame."""
    return [gate.selection.counts for gate in vit.state.trace.gates.values()]
