"""Searching and verifying an index that has to be read from the disk, next to reading its files in order.

    python benchmarks/bench_cold.py INDEX [--rounds 5] [--memory GIB]

Before each call the pages of the index are dropped from the page cache; read(), search and verify take turns.
--memory does it all in a control group with so much memory, page cache included (Linux, as root): an index that is
larger then never fits. Prints JSON. bench_billion.py has it among its parts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kit
import numpy as np

from fasthash import HammingIndex

GROUPS = Path("/sys/fs/cgroup")
K = 10


def forget(folder: Path) -> int:
    """Drops the pages of an index's segments from the page cache; gives their bytes."""
    size = 0
    for file in folder.glob("segment-*"):
        descriptor = os.open(file, os.O_RDONLY)
        size += os.fstat(descriptor).st_size
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    return size


def read_whole(folder: Path) -> None:
    buffer = bytearray(16 << 20)
    for file in sorted(folder.glob("segment-*")):
        with open(file, "rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """Medians; and the median of the ratios of calls that followed one another."""
    bits = HammingIndex.open(folder).bits
    query = np.zeros((1, (bits + 7) // 8), np.uint8)
    times: dict[str, list[float]] = {"read": [], "query": [], "verify": []}
    size = forget(folder)
    for _ in range(rounds):
        forget(folder)
        times["read"].append(seconds(lambda: read_whole(folder)))
        for name in ("query", "verify"):
            forget(folder)
            index = HammingIndex.open(folder, method="scan")
            call = index.verify if name == "verify" else lambda index=index: index.search(query, K)
            times[name].append(seconds(call))
            del index, call  # mapped pages cannot be dropped
    result: dict[str, Any] = {"bytes": size, "all_seconds": times}
    for name, values in times.items():
        result[f"{name}_seconds"] = kit.median(values)
        result[f"{name}_gb_s"] = size / kit.median(values) / 1e9
    for name in ("query", "verify"):
        ratios = [read / own for read, own in zip(times["read"], times[name], strict=True)]
        result[f"{name}_share_of_read"] = kit.median(ratios)
    return result


def limited(folder: Path, rounds: int, gib: float) -> dict[str, Any] | None:
    """The same in a process of its own that has only so much memory; None where no control group can be made."""
    limit = str(int(gib * 2**30))
    old, new = GROUPS / "memory" / "fasthash-bench", GROUPS / "fasthash-bench"
    group, file = (old, "memory.limit_in_bytes") if (GROUPS / "memory").is_dir() else (new, "memory.max")
    try:
        group.mkdir(exist_ok=True)
        (group / file).write_text(limit)
    except OSError:
        return None
    script = 'echo $$ > "$1/cgroup.procs" && shift && exec "$@"'
    command = [sys.executable, __file__, str(folder), "--rounds", str(rounds)]
    try:
        done = subprocess.run(
            ["sh", "-c", script, "sh", str(group), *command], capture_output=True, text=True, check=False
        )
    finally:
        group.rmdir()
    if done.returncode != 0:
        raise SystemExit(f"bench_cold: with {gib} GiB of memory: {done.stderr.strip()}")
    return {"memory_gib": gib, **json.loads(done.stdout)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=float, help="GiB")
    options = parser.parse_args()
    if options.memory is None:
        result: dict[str, Any] | None = measure(options.index, options.rounds)
    else:
        result = limited(options.index, options.rounds, options.memory)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
