"""Fits with all of torch's threads against the same fits with one, on an idle machine and beside a busy process.

Goal: all threads take at most 1.05 times as long as one, in the median of 5 interleaved fits. Run it without
GOMP_SPINCOUNT and OMP_WAIT_POLICY in the environment, as users of the library do. The busy process is one Python loop,
started and ended here. Writes results/busy.json, with three ratios:

- "all/one", the goal: of the medians;
- "by_round": the median of the ratios of the rounds, which a load that changes during the run moves less;
- "processor": of the processor seconds. Threads that spin cost these, whatever else the machine does.

    python benchmarks/bench_busy.py
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import kit
import numpy as np
import torch

from fasthash import Hasher
from fasthash.datasets import clinc150, clinc150_hierarchy

GOAL = 1.05
BUSY = "import os, sys\nwhile os.getppid() == int(sys.argv[1]): pass"  # ends with this process, however that ends


def fits(epochs: int) -> dict[str, Callable[[], Hasher]]:
    """Three fits: steps of 12 milliseconds, of 3, and of a third of a second on one core."""
    train, hierarchy = clinc150("train"), clinc150_hierarchy()
    X, y = train.embeddings, train.intents
    captions = X[::2] - X.mean(0)
    wide = {"hidden": (1024, 1024), "batch_size": 2048}
    return {
        "labels": lambda: Hasher(64, hierarchy, epochs=epochs, progress=False).fit(X[::2], y[::2]),
        "captions": lambda: Hasher(64, epochs=3 * epochs, progress=False).fit(captions),
        "wide": lambda: Hasher(64, hierarchy, epochs=max(1, epochs // 2), progress=False, **wide).fit(X, y),
    }


@contextlib.contextmanager
def busy_process() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", BUSY, str(os.getpid())])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def check(fit: Callable[[], Hasher], threads: int) -> float:
    """Part of the bits that a fit with one thread and one with all have in common; rounding may turn a few."""
    X, codes = clinc150("val").embeddings, []
    for count in (1, threads):
        torch.set_num_threads(count)
        codes.append(fit().encode(X))
    return float(1 - np.unpackbits(codes[0] ^ codes[1]).mean())


def compare(fit: Callable[[], Hasher], threads: int, rounds: int) -> dict[str, Any]:
    processor: dict[str, list[float]] = {"one": [], "all": []}

    def with_threads(name: str, count: int) -> Callable[[], None]:
        def call() -> None:
            torch.set_num_threads(count)
            start = time.process_time()
            fit()
            processor[name].append(time.process_time() - start)

        return call

    before = os.getloadavg()[0]
    calls = {"one": with_threads("one", 1), "all": with_threads("all", threads)}
    times = kit.interleave(calls, rounds, seconds=1e9)
    medians = {name: kit.median(found) for name, found in times.items()}
    processor = {name: found[1:] for name, found in processor.items()}  # without the warm-up round
    ratio = medians["all"] / medians["one"]
    return {
        "load_before": before,
        "load_after": os.getloadavg()[0],
        "seconds": times,
        "processor_seconds": processor,
        "median": medians,
        "all/one": ratio,
        "by_round": kit.median([a / b for a, b in zip(times["all"], times["one"], strict=True)]),
        "processor": kit.median(processor["all"]) / kit.median(processor["one"]),
        "goal": ratio <= GOAL,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--fits", nargs="+", choices=("labels", "captions", "wide"), default=None)
    parser.add_argument("--name", default="busy")
    options = parser.parse_args()
    threads = torch.get_num_threads()
    environment = {name: os.environ.get(name) for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")}
    result: dict[str, Any] = {"machine": kit.machine(), "threads": threads, "environment": environment}
    result |= {"rounds": options.rounds, "goal": GOAL, "fits": {}}
    for name, fit in fits(options.epochs).items():
        if options.fits is not None and name not in options.fits:
            continue
        case = result["fits"][name] = {"same_bits": check(fit, threads)}
        for machine in ("idle", "busy"):
            with busy_process() if machine == "busy" else contextlib.nullcontext():
                case[machine] = compare(fit, threads, options.rounds)
            found = case[machine]
            one, every = found["median"].values()
            print(
                f"{name}, {machine}: one thread {one:.2f} s, {threads} threads {every:.2f} s, ratio {every / one:.2f}, "
                f"by round {found['by_round']:.2f}, processor {found['processor']:.2f} "
                f"(load {found['load_before']:.1f} to {found['load_after']:.1f})",
                flush=True,
            )
            kit.write_json(options.name, result)


if __name__ == "__main__":
    main()
