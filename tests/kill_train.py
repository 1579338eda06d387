"""Kills a process with SIGKILL again and again while it trains, and compares what it ends with.

    python tests/kill_train.py --kills 100

Each run is continued after every kill until it ends by itself. Its weights must be those of a run that nothing
interrupted, bit for bit, and no kill may have cost more than the epoch that was under way.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
from hasher_cases import QUICK, blobs

from fasthash.train import Hasher

SETTINGS = {**QUICK, "epochs": 12, "ema": 0.9, "preserve": 0.1, "similarity": "stress", "progress": False}


def fit(folder: Path | None) -> Hasher:
    X, y = blobs()
    return Hasher(**SETTINGS, run_dir=folder).fit(X, y, validation=blobs(60, 3))


def epochs_done(folder: Path) -> list[int]:
    """Whole epochs that were found at each start."""
    path = folder / "environment.json"
    return [start["epochs_done"] for start in json.loads(path.read_text())] if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    torch.set_num_threads(1)  # the threads of a pool do not live on in a fork
    fit(None)  # the first takes longer
    start = time.perf_counter()
    wanted = fit(None)
    seconds = time.perf_counter() - start
    kills = runs = 0
    while kills < arguments.kills:
        with tempfile.TemporaryDirectory() as place:
            folder, ended, before = Path(place) / "run", False, 0
            while not ended:
                process = os.fork()
                if process == 0:
                    try:
                        fit(folder)
                        os._exit(0)
                    finally:
                        os._exit(1)
                time.sleep(rng.random() * seconds)
                os.kill(process, signal.SIGKILL)
                status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
                if status > 0:
                    sys.exit(f"seed {arguments.seed}, kill {kills}: training failed")
                ended = status == 0
                kills += not ended
                found = (epochs_done(folder) or [0])[-1]
                if found < before:
                    sys.exit(f"seed {arguments.seed}, kill {kills}: {before} epochs were done, then {found}")
                before = found
            result = fit(folder)
            weights = result.module_.state_dict()
            same = all(torch.equal(value, weights[name]) for name, value in wanted.module_.state_dict().items())
            if not same or result.history_ != wanted.history_:
                sys.exit(f"seed {arguments.seed}, kill {kills}: other weights than without interruption")
            if sorted(path.name for path in folder.glob(".*")):
                sys.exit(f"seed {arguments.seed}, kill {kills}: files are left that were written aside")
            runs += 1
    print(f"{kills} kills in {runs} runs: every run ended with the same weights")


if __name__ == "__main__":
    main()
