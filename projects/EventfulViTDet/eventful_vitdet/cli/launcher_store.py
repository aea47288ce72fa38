"""A part of torchrun's store that holds nothing of earlier attempts.

Where torchrun runs on several machines, a worker that fails counts as a restart on its own machine only, and PyTorch
keeps attempts apart by that count. So restarted processes would find addresses of processes that have ended.
"""

from __future__ import annotations

import os
import time
import uuid
from datetime import timedelta

import torch.distributed as dist

PREFIX = "eventful_vitdet"
LOOK_SECONDS = 0.05


def uses_launchers_store() -> bool:
    """Whether the launcher of this process keeps a store for all attempts."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)


def open_fresh_store(rank: int, size: int, timeout: timedelta) -> dist.Store:
    """A store that exactly those processes share that are running now. All of them call this together.

    Raises RuntimeError if they do not within the timeout.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return fresh_part(dist.TCPStore(address, port, is_master=False, timeout=timeout), rank, size, timeout)


def fresh_part(shared: dist.Store, rank: int, size: int, timeout: timedelta) -> dist.Store:
    """A part of a store that exactly those processes know that call this together."""
    store = dist.PrefixStore(PREFIX, shared)
    name = invite(store, size, timeout) if rank == 0 else accept(store, rank, timeout)
    return dist.PrefixStore(name, store)


def invite(store: dist.Store, size: int, timeout: timedelta) -> str:
    """Give all other processes a name that is new, and return it when they have it.

    A process asks by a word of its own, which is answered by the name. So only a running process gets it, and only from
    a running one.
    """
    name, deadline = uuid.uuid4().hex, time.monotonic() + timeout.total_seconds()
    missing = set(range(1, size))
    while missing:
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes {', '.join(map(str, sorted(missing)))} did not come")
        for rank in list(missing):
            if store.check([f"{name}/{rank}"]):
                missing.remove(rank)
            elif store.check([f"word/{rank}"]):
                store.set(f"answer/{store.get(f'word/{rank}').decode()}", name)
        time.sleep(LOOK_SECONDS)
    return name


def accept(store: dist.Store, rank: int, timeout: timedelta) -> str:
    """Ask process 0 for the name that all processes are given, and return it."""
    word, deadline = uuid.uuid4().hex, time.monotonic() + timeout.total_seconds()
    store.set(f"word/{rank}", word)
    while not store.check([f"answer/{word}"]):
        if time.monotonic() > deadline:
            raise RuntimeError("process 0 did not come")
        time.sleep(LOOK_SECONDS)
    name = store.get(f"answer/{word}").decode()
    store.set(f"{name}/{rank}", "here")
    return name
