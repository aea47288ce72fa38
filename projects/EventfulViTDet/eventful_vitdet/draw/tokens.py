"""The tokens that the gates of a model updated in its last frame: which they are, and a tint that shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from eventful_vit.frame import GateTrace

from ..errors import ConfigError

ANY = "any"
TOKEN_COLOR = (255, 150, 30)
TOKEN_OPACITY = (0.06, 0.30)
"""Of a token that one of many gates updated, and of one that all did: what lies below stays visible."""
EDGE_OPACITY = (0.15, 0.85)
"""The same of the line around neighbouring updated tokens."""


def choose_gates(gates: Iterable[str], choice: str) -> list[str]:
    """Names of the gates that a choice means.

    Args:
        gates: `EventfulViT.gate_names`, such as "blocks.0.qkv".
        choice: "any" for all gates, a block ("3"), or a single gate of it ("3.qkv", "3.projection", "3.mlp").

    Raises ConfigError, listing what there is.
    """
    gates = tuple(gates)
    prefix = choice if choice.startswith("blocks.") else f"blocks.{choice}"
    chosen = [name for name in gates if choice == ANY or name == prefix or name.startswith(f"{prefix}.")]
    if not chosen:
        blocks = 1 + max(int(name.split(".")[1]) for name in gates)
        kinds = ", ".join(dict.fromkeys(name.split(".")[2] for name in gates))
        raise ConfigError(
            f"{choice!r} names no tokens to show: choose 'any', a block from 0 to {blocks - 1}, or one of its gates "
            f"({kinds}) as in '0.qkv'"
        )
    return chosen


def updated_share(gates: Mapping[str, GateTrace], names: Sequence[str], grid: tuple[int, int]) -> np.ndarray:
    """The part of the named gates, 0 to 1, that updated each token of stream 0 in a frame, (h, w) float32."""
    share = np.zeros(grid, np.float32)
    for name in names:
        share.ravel()[gates[name].selection.stream_index(0).cpu().numpy()] += 1
    return share / len(names)


def draw_tokens(image: np.ndarray, share: np.ndarray, area: tuple[float, float]) -> np.ndarray:
    """Return a copy of the image with the updated tokens tinted.

    Args:
        share: (h, w), between 0 and 1 for each token: the part of the shown gates that updated it. 0 stays as it is.
        area: height and width, in pixels of the image, of what all tokens together cover. Frames are padded at the
            bottom and on the right, so this may be more than the image.
    """
    height, width = image.shape[:2]
    # Which token every row and column of pixels belongs to.
    rows = np.minimum((np.arange(height) + 0.5) * share.shape[0] / area[0], share.shape[0] - 1).astype(np.int64)
    columns = np.minimum((np.arange(width) + 0.5) * share.shape[1] / area[1], share.shape[1] - 1).astype(np.int64)
    pixels = share[rows[:, None], columns[None, :]].astype(np.float32)
    opacity = np.where(pixels > 0, _between(TOKEN_OPACITY, pixels), 0.0)
    edges = _edges(pixels > 0, max(1, round(area[0] / share.shape[0] / 12)))
    opacity[edges] = _between(EDGE_OPACITY, pixels[edges])
    tinted = image + opacity[..., None] * (np.array(TOKEN_COLOR, np.float32) - image)
    return np.round(tinted).astype(np.uint8)


def _between(limits: tuple[float, float], share: np.ndarray) -> np.ndarray:
    return (limits[0] + (limits[1] - limits[0]) * share).astype(np.float32)


def _edges(mask: np.ndarray, thickness: int) -> np.ndarray:
    """The outermost pixels of the marked regions; the border of the picture is no edge."""
    padded = np.pad(mask, thickness, mode="edge")
    inside = mask.copy()
    for axis in (0, 1):
        for start in (0, 2 * thickness):
            kept = [slice(thickness, thickness + length) for length in mask.shape]
            kept[axis] = slice(start, start + mask.shape[axis])
            inside &= padded[tuple(kept)]
    return mask & ~inside
