"""What goes to the page over its websocket: one binary message for each update.

Four bytes with the length of a JSON text (big-endian), the text, and the JPEG of the frame, if it is another one than
before.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict

from .session import Cost, Picture, Update
from .settings import Limits


def encode_update(update: Update, before: Update | None, viewers: int) -> bytes:
    """The message that brings a viewer from one update (None: from nothing) to another."""
    last = before.costs[-1].serial if before is not None and before.costs else -1
    state = {
        "settings": asdict(update.settings),
        "limits": _encode_limits(update.limits),
        "costs": [_encode_cost(cost) for cost in update.costs if cost.serial > last],
        "frames_per_second": round(update.frames_per_second, 2),
        "notice": update.notice,
        "lost": update.lost,
        "error": update.error,
        "viewers": viewers,
    }
    jpeg = b""
    if update.picture is not None and (before is None or update.picture is not before.picture):
        state["picture"] = _encode_picture(update.picture)
        jpeg = update.picture.jpeg
    text = json.dumps(state, allow_nan=False).encode("utf-8")
    return len(text).to_bytes(4, "big") + text + jpeg


def _encode_limits(limits: Limits) -> dict:
    return {
        "tokens": limits.tokens,
        "smallest_budget": limits.smallest_budget,
        "largest_budget": limits.largest_budget,
        "num_frames": limits.num_frames,
        "seekable": limits.seekable,
        "has_automatic": limits.has_automatic,
    }


def _encode_cost(cost: Cost) -> dict:
    encoded = {
        "serial": cost.serial,
        "gflops": round(cost.gflops, 6),
        "ms": round(cost.milliseconds, 3),
        "kind": cost.kind,
    }
    if cost.dense is not None:
        encoded["dense_gflops"], encoded["dense_ms"] = round(cost.dense[0], 6), round(cost.dense[1], 3)
    return encoded


def _encode_picture(picture: Picture) -> dict:
    tokens = picture.tokens
    return {
        "name": picture.name,
        "index": picture.index,
        "seconds": round(picture.seconds, 3),
        "width": picture.width,
        "height": picture.height,
        "detections": picture.detections,
        "dense_detections": picture.dense_detections,
        "budget": picture.budget,
        "actions": picture.actions,
        "tokens": None
        if tokens is None
        else {
            "rows": tokens.shape[0],
            "columns": tokens.shape[1],
            "area": picture.token_area,
            "share": base64.b64encode(tokens.tobytes()).decode("ascii"),
        },
    }
