"""The operators on a CPU: C++ kernels that are compiled on first use. PyTorch operations run where there are none."""

from . import attention, gating, linear
from .library import Sampler, available, describe_kernels
from .openmp import end_waiting_threads
from .thread_counts import pool_threads, thread_counts

__all__ = [
    "Sampler",
    "attention",
    "available",
    "describe_kernels",
    "end_waiting_threads",
    "gating",
    "linear",
    "pool_threads",
    "thread_counts",
]
