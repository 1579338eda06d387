"""What the benchmarks share: interleaved timing, the machine, results as JSON."""

from __future__ import annotations

import concurrent.futures
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

RESULTS = Path(__file__).resolve().parent / "results"
PAUSE = 0.02  # seconds


def interleave(
    contenders: dict[str, Callable[[], Any]],
    rounds: int,
    seconds: float = 60.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each call, by `clock`; contenders take turns, so that a noisy machine hurts all of them alike.

    One warm-up round is not counted. At least 3 rounds, at most `rounds`, and no new one after `seconds`. Before each
    call there is a pause: OpenMP's threads go on spinning for some milliseconds after a peer's call, on cores that the
    next contender needs.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    begin = time.perf_counter()
    for round_number in range(rounds + 1):
        if round_number > 3 and time.perf_counter() - begin > seconds:
            break
        for name, call in contenders.items():
            time.sleep(PAUSE)
            start = clock()
            call()
            if round_number > 0:
                times[name].append(clock() - start)
    return times


def median(times: list[float]) -> float:
    return statistics.median(times)


def reader(data: np.ndarray[Any, Any], threads: int) -> Callable[[], Any]:
    """A call that reads all of `data` (contiguous, whole 8-byte words) from memory, on `threads` threads.

    Sums of int64 words: measured to be as fast as an exclusive or in AVX-512 registers.
    """
    parts = np.array_split(data.reshape(-1).view(np.int64), threads)
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    return lambda: list(pool.map(np.sum, parts))


def machine() -> dict[str, Any]:
    """Processor, versions and commit, for the head of a results file."""
    from fasthash import _ops

    info: dict[str, Any] = {
        "processor": _cpuinfo("model name") or platform.processor(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "isa": {"available": _ops.isa_names(), "chosen": _ops.isa_chosen()},
        "commit": _git("rev-parse", "--short", "HEAD"),
        "changed_files": len((_git("status", "--porcelain", "--untracked-files=no") or "").splitlines()),
        "versions": {},
    }
    for package in ("fasthash", "torch", "numpy", "faiss-cpu", "usearch"):
        try:
            info["versions"][package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            info["versions"][package] = None
    if torch.cuda.is_available():
        info["gpu"] = torch.cuda.get_device_name()
    return info


def _cpuinfo(field: str) -> str | None:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field)), None)


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=RESULTS.parent, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def write_json(name: str, result: dict[str, Any]) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path
