"""Which tokens the gates of a model updated in its last frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..eventful.gate import TokenGate

ANY = "any"


def choose_gates(gates: Mapping[str, TokenGate], choice: str) -> list[str]:
    """Names of the gates that a choice means.

    Args:
        gates: as `EventfulViT.gates()` returns them, by names such as "blocks.0.qkv".
        choice: "any" for all gates, a block ("3"), or a single gate of it ("3.qkv", "3.projection", "3.mlp").

    Raises ValueError, listing what there is.
    """
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


def updated_share(gates: Mapping[str, TokenGate], names: Sequence[str], grid: tuple[int, int]) -> np.ndarray:
    """The part of the named gates, 0 to 1, that updated each token of stream 0 in the last frame, (h, w) float32.

    All zeros before the first eventful frame.
    """
    share = np.zeros(grid, np.float32)
    for name in names:
        selection = gates[name].selection
        if selection is None:
            continue
        if selection.index is None:
            share += 1
        else:
            index = selection.index[selection.index < selection.tokens].cpu().numpy()
            share.ravel()[index] += 1
    return share / len(names)
