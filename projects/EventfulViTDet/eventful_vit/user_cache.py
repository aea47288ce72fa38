"""Where a user's programs keep what they can make again."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path | None:
    """$XDG_CACHE_HOME, or ~/.cache, which may not exist; None for a user without a home folder."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # a relative one is to be ignored, as its specification says
        return Path(base)
    try:
        return Path.home() / ".cache"
    except RuntimeError:
        return None
