"""Limits of containers, of both versions of control groups."""

from __future__ import annotations

from pathlib import Path

import pytest
from eventful_vitdet.control_groups import cpu_limit, memory_left


@pytest.fixture
def system(tmp_path):
    """Writes files of a pretended system."""

    def write(**files: str) -> Path:
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_DOT_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


MEMORY = "MemTotal:       1000 kB\nMemAvailable:    500 kB\n"


def test_version_2(system):
    root = system(proc__self__cgroup="0::/\n", sys__fs__cgroup__cpu_DOT_max="150000 100000\n", proc__meminfo=MEMORY)
    assert cpu_limit(root) == 1.5 and memory_left(root) == 500 * 1024
    system(sys__fs__cgroup__memory_DOT_max="300000\n", sys__fs__cgroup__memory_DOT_current="100000\n")
    assert memory_left(root) == 200000
    system(sys__fs__cgroup__cpu_DOT_max="max 100000\n", sys__fs__cgroup__memory_DOT_max="max\n")
    assert cpu_limit(root) is None and memory_left(root) == 500 * 1024


def test_groups_around_ones_own_limit_it_too(system):
    root = system(
        proc__self__cgroup="0::/pod/box\n",
        sys__fs__cgroup__pod__cpu_DOT_max="100000 100000\n",
        sys__fs__cgroup__pod__box__cpu_DOT_max="200000 100000\n",
    )
    assert cpu_limit(root) == 1.0


def test_version_1(system):
    root = system(
        proc__self__cgroup="5:memory:/box\n3:cpu,cpuacct:/box\n",
        **{"sys__fs__cgroup__cpu,cpuacct__box__cpu_DOT_cfs_quota_us": "50000\n"},
        **{"sys__fs__cgroup__cpu,cpuacct__box__cpu_DOT_cfs_period_us": "100000\n"},
        sys__fs__cgroup__memory__box__memory_DOT_limit_in_bytes="4000\n",
        sys__fs__cgroup__memory__box__memory_DOT_usage_in_bytes="5000\n",
    )
    assert cpu_limit(root) == 0.5 and memory_left(root) == 0.0
    system(**{"sys__fs__cgroup__cpu,cpuacct__box__cpu_DOT_cfs_quota_us": "-1\n"})
    assert cpu_limit(root) is None


def test_paths_of_the_host_and_nothing_at_all(system):
    root = system(proc__self__cgroup="0::/../../elsewhere\n", sys__fs__cgroup__cpu_DOT_max="80000 100000\n")
    assert cpu_limit(root) == 0.8
    assert cpu_limit(root / "nowhere") is None and memory_left(root / "nowhere") is None
    system(sys__fs__cgroup__cpu_DOT_max="nonsense\n")
    assert cpu_limit(root) is None
