"""What this machine lets a process use."""

import os
from pathlib import Path

# Quota and period in µs of a container's processes, "max" where there is no limit (cgroup v2).
_CGROUP = Path("/sys/fs/cgroup/cpu.max")


def usable_cpus() -> int:
    """CPUs that this process may use, at least 1: those it is bound to, or fewer where a container limits its time."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CGROUP.read_text(encoding="utf-8").split()
        return max(1, min(cpus, int(quota) // int(period)))
    except (OSError, ValueError):
        return cpus
