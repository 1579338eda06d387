"""How much memory this process may still take."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")  # of version 2, as containers have


def free_memory() -> int:
    """Bytes that can be taken without swapping: what Linux and the limits of a container say, elsewhere half of all."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return max(min([free, *_left_in_groups()]), 0)


def _left_in_groups() -> list[int]:
    """The free memory of the control group of this process and of each group above it; empty if none has a limit."""
    try:
        own = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    group = _CGROUPS / own.strip("/")
    return [left for folder in (group, *group.parents) if (left := _left_in_group(folder)) is not None]


def _left_in_group(folder: Path) -> int | None:
    try:
        limit = (folder / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((folder / "memory.current").read_text())
        pages = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        files = sum(int(size) for name, size in pages if name in ("inactive_file", "active_file"))
        return int(limit) - used + files  # pages of files go where memory is wanted
    except (OSError, ValueError):
        return None
