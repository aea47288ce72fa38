"""What goes to a page over its websocket: one binary message for each update.

Four bytes with the length of a JSON text (big-endian), the text, and the JPEGs of the pictures that the text describes,
in their order. A picture is left out if it is the one of before.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict

from .settings import Limits, Look
from .updates import Cost, GridUpdate, Picture, Update

TILE_COSTS = 15
"""Of a tile, no more than the last ones are told: those that the page takes the median of (page/costs.js)."""


def encode(news: Update | GridUpdate, before: Update | GridUpdate | None, viewers: int, look: Look) -> bytes:
    """The message that brings a viewer from one update (None: from nothing) to another, as far as it looks at it."""
    if isinstance(news, Update):
        return encode_update(news, before, viewers, look)
    if look.camera is None:
        return encode_grid(news, before, viewers, look)
    own = news.cameras[look.camera]
    return encode_update(own, None if before is None else before.cameras[look.camera], viewers, look)


def encode_update(update: Update, before: Update | None, viewers: int, look: Look) -> bytes:
    """A message of one camera."""
    jpegs: list[bytes] = []
    state = {
        "settings": asdict(update.settings),
        "limits": _encode_limits(update.limits),
        "viewers": viewers,
        "camera": look.camera,
        **_encode_camera(update, before, look, jpegs),
    }
    return _pack(state, jpegs)


def encode_grid(grid: GridUpdate, before: GridUpdate | None, viewers: int, look: Look) -> bytes:
    """A message of all cameras."""
    jpegs: list[bytes] = []
    tiles = []
    for number, (name, camera, full) in enumerate(zip(grid.names, grid.cameras, grid.full_gflops)):
        last = None if before is None else before.cameras[number]
        tile = _encode_camera(camera, last, look, jpegs)
        tile["costs"] = tile["costs"][-TILE_COSTS:]
        tiles.append({"name": name, "full_gflops": None if full is None else round(full, 6), **tile})
    state = {
        "settings": asdict(grid.settings),
        "limits": _encode_limits(grid.limits),
        "viewers": viewers,
        "frames_per_second": round(grid.frames_per_second, 2),
        "tiles": tiles,
    }
    return _pack(state, jpegs)


def _encode_camera(update: Update, before: Update | None, look: Look, jpegs: list[bytes]) -> dict:
    """What is to be told of a camera; the JPEG of its picture, if it is a new one, joins the others."""
    last = before.costs[-1].serial if before is not None and before.costs else -1
    state = {
        "costs": [_encode_cost(cost) for cost in update.costs if cost.serial > last],
        "frames_per_second": round(update.frames_per_second, 2),
        "notice": update.notice,
        "lost": update.lost,
        "error": update.error,
    }
    if update.picture is not None and (before is None or update.picture is not before.picture):
        jpegs.append(update.picture.image.jpeg(look.width))
        state["picture"] = {**_encode_picture(update.picture), "bytes": len(jpegs[-1])}
    return state


def _pack(state: dict, jpegs: list[bytes]) -> bytes:
    text = json.dumps(state, allow_nan=False).encode("utf-8")
    return len(text).to_bytes(4, "big") + text + b"".join(jpegs)


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
        "updated": None if picture.updated is None else round(picture.updated, 4),
        "tokens": None
        if tokens is None
        else {
            "rows": tokens.shape[0],
            "columns": tokens.shape[1],
            "area": picture.token_area,
            "share": base64.b64encode(tokens.tobytes()).decode("ascii"),
        },
    }
