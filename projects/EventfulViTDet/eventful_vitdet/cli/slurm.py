"""SLURM's environment variables in the form of torchrun's."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..errors import ConfigError

FIRST_PORT, PORTS = 20000, 20000


def slurm_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """RANK, WORLD_SIZE, ... for one of several tasks that `srun` has started; {} for anything else.

    torchrun's own variables go first, and so do MASTER_ADDR and MASTER_PORT where they are set.
    """
    tasks = int(_first(environment, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS") or 1)
    if tasks == 1 or "SLURM_PROCID" not in environment or "RANK" in environment:
        return {}
    nodes = _first(environment, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
    per_node = _first(environment, "SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE")
    job = int(_first(environment, "SLURM_JOB_ID", "SLURM_JOBID") or 0) + int(environment.get("SLURM_STEP_ID") or 0)
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": str(tasks),
        "LOCAL_RANK": environment.get("SLURM_LOCALID", "0"),
        "LOCAL_WORLD_SIZE": str(tasks_per_node(per_node or str(tasks))),
        "MASTER_ADDR": environment.get("MASTER_ADDR") or first_node(nodes or "localhost"),
        "MASTER_PORT": environment.get("MASTER_PORT") or str(FIRST_PORT + job % PORTS),
    }


def first_node(nodes: str) -> str:
    """The first name of a list such as "gpu[03-05,9],login"."""
    name, digits = re.match(r"([^,\[]+)(?:\[(\d+)[^\]]*\])?", nodes).groups()
    return name + (digits or "")


def tasks_per_node(counts: str) -> int:
    """The number of tasks on each node, from "4(x2)", "4" or "4,4". Raises ConfigError if they differ."""
    numbers = {int(re.match(r"\d+", part).group()) for part in counts.split(",")}
    if len(numbers) > 1:
        raise ConfigError(f"SLURM has started {counts} tasks on the nodes; all nodes need the same number")
    return numbers.pop()


def _first(environment: Mapping[str, str], *names: str) -> str | None:
    return next((environment[name] for name in names if environment.get(name)), None)
