"""Encoding on Ray gives what one process gives, once each, also where a worker or the calling process is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasthash import HammingIndex, baselines, cluster
from fasthash.cluster.encode_work import EncodeWork
from fasthash.train import Hasher

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'fasthash[ray]'")
arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds Ray's processes in /proc")

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "cluster.md"
BLOCK, FEATURES = 1 << 14, 12
SETTINGS: dict[str, Any] = {"block_rows": BLOCK, "progress": False}
ENDED_AFTER = 3  # blocks, by the process that is killed
DRIVER = f"""
import os, signal, sys
import ray
from fasthash import cluster
from fasthash.cluster.encode_work import EncodeWork
add, done = EncodeWork.add, []
def counted(*given):
    done.append(add(*given))
    if len(done) == {ENDED_AFTER}:
        os.kill(os.getpid(), signal.SIGKILL)
    return done[-1]
EncodeWork.add = counted
ray.init(sys.argv[1], log_to_driver=False)
cluster.encode(*sys.argv[2:5], block_rows={BLOCK}, progress=False)
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a small cluster of these tests' own."""
    places = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    started = ray.init(
        "local",
        num_cpus=2,
        object_store_memory=200 << 20,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": places, "CUDA_VISIBLE_DEVICES": ""}},
    )
    yield started.address_info["address"]
    ray.shutdown()


def rows(count: int, seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(count, FEATURES)).astype(np.float32)


def workers() -> list[int]:
    """The encoding processes of this test's cluster: descendants of this process by name."""
    parents, found = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int(re.sub(r".*\)", "", (folder / "stat").read_text()).split()[1])
            if b"ray::MapWorker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except (OSError, IndexError, ValueError):  # it has ended
            continue
    return [number for number in found if os.getpid() in list(ancestors(number, parents))]


def ancestors(number: int, parents: dict[int, int]) -> Iterator[int]:
    while number in parents:
        number = parents[number]
        yield number


def test_a_worker_that_is_killed(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tables with ids and keys in blocks that are no row groups; a worker is killed after the first block."""
    X = rows(8 * BLOCK + 777, 0)
    labels = np.arange(len(X)) % 7
    model = Hasher(16, hidden=(8,), epochs=1, progress=False).fit(X[:600], labels[:600])
    ids, keys = np.random.default_rng(1).permutation(len(X)) * 3, [f"row {n}" for n in range(len(X))]
    folder, cut = tmp_path / "tables", 5 * BLOCK + 99
    folder.mkdir()
    for name, span in (("a.parquet", slice(0, cut)), ("b.parquet", slice(cut, None))):
        columns = {"id": ids[span], "name": keys[span], "x": list(X[span])}
        parquet.write_table(arrow.table(columns), folder / name, row_group_size=5000)
    killed: list[int] = []
    add = EncodeWork.add

    def counted(self: EncodeWork, *given: Any) -> bool:
        if not killed:
            killed.extend(workers()[:1])
            os.kill(killed[0], signal.SIGKILL)
        return add(self, *given)

    monkeypatch.setattr(EncodeWork, "add", counted)
    index = cluster.encode(model, folder, tmp_path / "index", key_column="name", workers=2, **SETTINGS)
    assert killed
    codes = np.concatenate([model.encode(X[:cut]), model.encode(X[cut:])])
    source = ((codes[at : at + 999], ids[at : at + 999], keys[at : at + 999]) for at in range(0, len(X), 999))
    wanted = HammingIndex.build(tmp_path / "one", source, bits=16, bit_weights=model.bit_weights_, progress=False)
    assert np.array_equal(index.ids, wanted.ids)
    assert np.array_equal(index.get(index.ids), wanted.get(wanted.ids))
    assert index.get(keys=["row 70000"]).tolist() == codes[70000:70001].tolist()
    assert index.bit_weights == wanted.bit_weights
    index.verify()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "one", "tables"]


def test_a_calling_process_that_is_killed(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X = rows(8 * BLOCK + 777, 2)
    np.save(tmp_path / "x.npy", X)
    model = baselines.lsh(X[:600], 24)
    model.save(tmp_path / "model.safetensors")
    paths = [str(tmp_path / name) for name in ("model.safetensors", "x.npy", "index")]
    ended = subprocess.run([sys.executable, "-c", DRIVER, address, *paths], cwd=HERE, timeout=300, check=False)
    assert ended.returncode == -signal.SIGKILL
    with pytest.raises(ValueError, match=r"^cluster.encode: .*holds the work of a call with another model"):
        cluster.encode(baselines.lsh(X[:600], 24, seed=1), *paths[1:], **SETTINGS)
    with pytest.raises(ValueError, match=r"^cluster.encode: .*holds the work of a call with another block_rows"):
        cluster.encode(model, *paths[1:], block_rows=3 * BLOCK)
    added: list[bool] = []
    add = EncodeWork.add
    monkeypatch.setattr(EncodeWork, "add", lambda *given: added.append(add(*given)) or added[-1])
    index = cluster.encode(model, *paths[1:], workers=1, **SETTINGS)  # the model of the file, as an object
    assert added == [True] * (9 - ENDED_AFTER)
    assert np.array_equal(index.get(np.arange(len(X))), model.encode(X))
    assert len(index) == len(X)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "model.safetensors", "x.npy"]


def test_rows_that_cannot_be_encoded(address: str, tmp_path: Path) -> None:
    """What is wrong with a row is told at once, and not tried again."""
    X = rows(3 * BLOCK, 3)
    X[2 * BLOCK + 5, 1] = np.nan
    np.save(tmp_path / "x.npy", X)
    model = baselines.lsh(X[:600], 24)
    wrong = r"^cluster.encode: .*x.npy must be finite in float32, got NaN or infinity in row 32773$"
    with pytest.raises(ValueError, match=wrong):
        cluster.encode(model, tmp_path / "x.npy", tmp_path / "index", workers=1, **SETTINGS)
    assert not (tmp_path / "index").exists()


def test_the_example_of_the_page(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    section = PAGE.read_text(encoding="utf-8").split("## Encoding")[1].split("\n## ")[0]
    (source,) = re.findall(r"^```python\n(.*?)^```", section, flags=re.S | re.M)
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(source, PAGE.name, "exec"), names)
    codes = baselines.LinearCodes.load("model.safetensors").encode(names["X"])
    assert np.array_equal(names["index"].get(np.arange(50_000)), codes)
