"""What an installed wheel must do, without compiler and sources: python tests/wheel_smoke.py (tools/check_wheel.sh)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

import fasthash

CODES = np.random.default_rng(0).integers(0, 256, (5_000, 8), dtype=np.uint8)


def searches() -> None:
    found = fasthash.hamming_topk(CODES[:20], CODES, 10)
    distances = np.unpackbits(CODES[:20, None] ^ CODES, axis=2).sum(2, dtype=np.int32)
    ids = np.argsort(distances, axis=1, kind="stable")[:, :10]
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_array_equal(found.distances, np.take_along_axis(distances, ids, 1))
    with tempfile.TemporaryDirectory() as folder:
        index = fasthash.HammingIndex(bits=64)
        index.add(CODES)
        index.save(f"{folder}/index")
        np.testing.assert_array_equal(fasthash.HammingIndex.open(f"{folder}/index").search(CODES[:20], 10).ids, ids)


def trains() -> None:
    z = torch.rand(64, 32, requires_grad=True)
    fasthash.kl_loss(z).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    y = np.arange(300) % 3
    X = np.random.default_rng(0).normal(size=(300, 16)) + 4 * np.eye(3, 16)[y]
    codes = fasthash.Hasher(16, epochs=5, progress=False).fit(X, y).encode(X)
    assert (y[fasthash.hamming_topk(codes, codes, 2).ids[:, 1]] == y).mean() > 0.9


def main() -> None:
    assert "site-packages" in str(Path(fasthash.__file__).resolve()), fasthash.__file__
    searches()
    trains()
    told = subprocess.run([sys.executable, "-m", "fasthash", "info"], check=True, capture_output=True, text=True).stdout
    print(told)
    compilers = [name for name in ("cc", "c++", "gcc", "g++", "clang", "nvcc", "cmake") if shutil.which(name)]
    print(f"fasthash {fasthash.__version__} works; compilers on PATH: {compilers or 'none'}")


if __name__ == "__main__":
    main()
