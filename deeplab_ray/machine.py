"""What this machine lets this process use."""

import os
from pathlib import Path

# A container's CPU quota and period in µs (cgroup v2); the quota is "max" if there is no limit.
_CGROUP = Path("/sys/fs/cgroup/cpu.max")


def usable_cpus() -> int:
    """Return how many CPUs this process may use, at least 1: those it is bound to, or fewer if a container limits its
    CPU time."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CGROUP.read_text(encoding="utf-8").split()
        return max(1, min(cpus, int(quota) // int(period)))
    except (OSError, ValueError):
        return cpus
