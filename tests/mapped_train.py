"""Trains on and encodes memory-mapped files with less memory for data than any one of them would take.

    python tests/mapped_train.py FOLDER

The files are sparse. RLIMIT_DATA bounds what the process may allocate; pages of files do not count.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np
import torch

from fasthash.train import Hasher, validation

ROWS, FEATURES = 32_768, 768  # 101 MB of float32
LIMIT = 84 << 20  # bytes above what the process has when it begins


def mapped(path: Path, dtype: type, columns: int) -> np.ndarray:
    """A file of zeros with ones in its first rows, mapped for reading."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(ROWS, columns))
    array[:64, :64] = np.eye(64)
    del array
    return np.load(path, mmap_mode="r")


def main() -> None:
    torch.set_num_threads(1)
    validation.QUERIES, validation.DATABASE = 100, 500  # rows of which a score makes copies, however many there are
    folder = Path(sys.argv[1])
    X, E = mapped(folder / "X", np.float32, FEATURES), mapped(folder / "E", np.float32, FEATURES)
    L = mapped(folder / "L", np.int8, 4 * FEATURES)
    y = (np.arange(ROWS) % 5).astype(np.int8)
    # Batches of neighbours, the default for embeddings, would need a table of 512 bytes a row.
    settings = {"bits": 8, "hidden": (), "epochs": 1, "batch_size": 256, "kl": 0.0, "neighbors": 1, "progress": False}
    Hasher(**settings).fit(X[:8192], y[:8192])  # what is allocated only once
    with open("/proc/self/status") as file:
        now = next(int(line.split()[1]) << 10 for line in file if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (now + LIMIT, now + LIMIT))
    Hasher(**settings).fit(X, L)
    Hasher(**settings).fit(X, E, validation=(X, E))
    hasher = Hasher(**settings, run_dir=folder / "run").fit(X, y)
    if hasher.encode(X).shape != (ROWS, 1):
        sys.exit("not all rows have codes")
    try:
        X + 0.0
    except MemoryError:
        print("trained within the limit")


if __name__ == "__main__":
    main()
