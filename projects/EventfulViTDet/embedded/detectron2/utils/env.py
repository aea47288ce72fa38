"""Random number generators."""

from __future__ import annotations

import logging
import os
import random

import numpy as np
import torch


def seed_all_rng(seed: int | None = None) -> None:
    """Seed Python's, numpy's and torch's generators; None stands for a fresh seed, which is logged."""
    if seed is None:
        seed = int.from_bytes(os.urandom(4), "big")
        logging.getLogger(__name__).info("random seed of this run: %d", seed)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # of all devices
