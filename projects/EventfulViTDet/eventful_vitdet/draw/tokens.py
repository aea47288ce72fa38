"""The tokens that the gates of a model updated in its last frame: which they are, and a tint that shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from eventful_vit.frame import GateTrace

ANY = "any"
TOKEN_COLOR = (255, 150, 30)
TOKEN_OPACITY = (0.12, 0.60)
"""Of a token that one of many gates updated, and of one that all did."""


def choose_gates(gates: Iterable[str], choice: str) -> list[str]:
    """Names of the gates that a choice means.

    Args:
        gates: `EventfulViT.gate_names`, such as "blocks.0.qkv".
        choice: "any" for all gates, a block ("3"), or a single gate of it ("3.qkv", "3.projection", "3.mlp").

    Raises ValueError, listing what there is.
    """
    gates = tuple(gates)
    prefix = choice if choice.startswith("blocks.") else f"blocks.{choice}"
    chosen = [name for name in gates if choice == ANY or name == prefix or name.startswith(f"{prefix}.")]
    if not chosen:
        blocks = 1 + max(int(name.split(".")[1]) for name in gates)
        kinds = ", ".join(dict.fromkeys(name.split(".")[2] for name in gates))
        raise ValueError(
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
    opacity = np.where(share > 0, TOKEN_OPACITY[0] + (TOKEN_OPACITY[1] - TOKEN_OPACITY[0]) * share, 0.0)
    # Which token every row and column of pixels belongs to.
    rows = np.minimum((np.arange(height) + 0.5) * share.shape[0] / area[0], share.shape[0] - 1).astype(np.int64)
    columns = np.minimum((np.arange(width) + 0.5) * share.shape[1] / area[1], share.shape[1] - 1).astype(np.int64)
    weight = opacity[rows[:, None], columns[None, :], None].astype(np.float32)
    tinted = image + weight * (np.array(TOKEN_COLOR, np.float32) - image)
    return np.round(tinted).astype(np.uint8)
