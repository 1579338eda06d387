"""What an encoding on Ray reads and keeps, without ray: blocks of files, and the work of a call that was killed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fasthash import HammingIndex, IndexFolderError, baselines, cluster
from fasthash.cluster import row_files
from fasthash.cluster.encode_work import EncodeWork
from fasthash.cluster.row_files import RowBlock, blocks_of, open_files, read_block, read_ids
from fasthash.train import Hasher

FEATURES, STEP = 3, 8
FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rows(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(count, FEATURES)).astype(np.float32)


def write(path: Path, X: np.ndarray[Any, Any], ids: np.ndarray[Any, Any] | None, unit: int) -> None:
    """A .npy, or a table with row groups or batches of `unit` rows."""
    if path.suffix == ".npy":
        np.save(path, X)
        return
    arrow = pytest.importorskip("pyarrow")
    columns = {"x": list(X)} if ids is None else {"x": list(X), "id": ids}
    kind = (
        {"x": arrow.list_(arrow.float32())} if ids is None else {"x": arrow.list_(arrow.float32()), "id": arrow.int64()}
    )
    table = arrow.table(columns, arrow.schema(kind))
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow.parquet").write_table(table, path, row_group_size=unit)
        return
    ipc = pytest.importorskip("pyarrow.ipc")
    new = ipc.new_file if path.suffix == ".arrow" else ipc.new_stream
    with new(os.fspath(path), table.schema) as file:
        file.write_table(table, max_chunksize=unit)


@FEW
@given(
    kinds=st.lists(st.sampled_from([".npy", ".parquet", ".arrow", ".ipc"]), min_size=1, max_size=3),
    unit=st.integers(1, 40),
    size=st.integers(1, 40),
    data=st.data(),
)
def test_blocks_are_the_rows(
    kinds: list[str], unit: int, size: int, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_files, "STEP", STEP)
    with_ids = ".npy" not in kinds and data.draw(st.booleans())
    wanted, wanted_ids, paths = [], [], []
    for number, kind in enumerate(kinds):
        X = rows(data.draw(st.integers(1, 100)), number)
        ids = np.arange(len(X)) * 7 + number if with_ids else None
        paths.append(tmp_path / f"{number}{kind}")
        paths[-1].unlink(missing_ok=True)
        write(paths[-1], X, ids, unit)
        wanted.append(X)
        wanted_ids.append(ids)
    files = open_files(paths, None, None, "test")
    blocks = blocks_of(files, size)
    places = [row for block in blocks for row in range(block.place, block.place + block.stop - block.start)]
    assert places == list(range(sum(map(len, wanted))))
    for block in blocks:
        file = files[block.file]
        parts = list(read_block(file, block.start, block.stop, "test"))
        assert np.array_equal(np.concatenate(parts), wanted[block.file][block.start : block.stop])
        # A file is encoded in the same steps, however it is cut.
        assert block.start % STEP == 0
        assert all(len(part) == STEP for part in parts[:-1])
        found = read_ids(file, block.start, block.stop, "test")
        assert (found is None) == (not with_ids)
        if found is not None:
            assert found.tolist() == wanted_ids[block.file][block.start : block.stop].tolist()


def test_sources_that_cannot_be_read(tmp_path: Path) -> None:
    X = rows(9)
    write(tmp_path / "x.npy", X, None, 9)
    write(tmp_path / "ids.parquet", X, np.arange(9), 4)
    write(tmp_path / "none.parquet", X[:0], None, 4)
    np.save(tmp_path / "whole.npy", np.arange(6).reshape(2, 3))
    (tmp_path / "x.csv").write_text("a,b\n0.5,1.5\n")
    (tmp_path / "empty").mkdir()
    cases: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (3, {}, TypeError, "source must be a path or a list of paths, got int"),
        ([3], {}, TypeError, "source must be a path or a list of paths, got list"),
        ([], {}, ValueError, "source must have at least one path, got none"),
        ("empty", {}, ValueError, "has no files that end in .npy"),
        ("x.csv", {}, ValueError, "blocks of rows are read from .npy, Parquet and Arrow"),
        ("whole.npy", {}, ValueError, "must hold floating point rows [N, F], got int64 of shape [2, 3]"),
        ("x.npy", {"column": "x"}, ValueError, "has no columns; column must be None"),
        ("none.parquet", {}, ValueError, "has no rows"),
        ("ids.parquet", {"column": "y"}, ValueError, "has no column 'y'"),
        (["ids.parquet", "x.npy"], {}, ValueError, "either all files have ids or none"),
    ]
    for source, options, kind, said in cases:
        paths = [tmp_path / name for name in source] if isinstance(source, list) and source[:1] != [3] else source
        paths = tmp_path / source if isinstance(source, str) else paths
        with pytest.raises(kind) as caught:
            open_files(paths, options.get("column"), options.get("id_column"), "cluster.encode")
        assert said in str(caught.value)
        assert str(caught.value).startswith("cluster.encode: ")
    with pytest.raises(FileNotFoundError):
        open_files(tmp_path / "missing.npy", None, None, "cluster.encode")
    changed = open_files(tmp_path / "x.npy", None, None, "cluster.encode")[0]
    with pytest.raises(ValueError, match="has 9 rows, it had 12 when the work began"):
        list(read_block(changed._replace(rows=12), 0, 12, "cluster.encode"))


BLOCKS = [RowBlock(0, 0, 5, 0), RowBlock(0, 5, 9, 5), RowBlock(1, 0, 1, 9), RowBlock(1, 1, 4, 10)]
CODES, IDS = np.random.default_rng(0).integers(0, 256, (13, 2), np.uint8), np.arange(13) * 10**9


def work_in(folder: Path, plan: dict[str, Any] | None = None, blocks: list[RowBlock] = BLOCKS) -> EncodeWork:
    return EncodeWork(folder / "index", plan or {"model": "a"}, blocks, 2, True, "cluster.encode")


def add(work: EncodeWork, number: int) -> bool:
    block = BLOCKS[number]
    span = slice(block.place, block.place + block.stop - block.start)
    return work.add(number, CODES[span], IDS[span])


def killer(calls: int) -> Callable[[int], None]:
    """An fsync whose n-th call kills the process."""
    left, fsync = [calls], os.fsync

    def counted(descriptor: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    return counted


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_work_goes_on_after_a_kill_at_any_write(tmp_path: Path) -> None:
    """A child is killed in its n-th fsync; what it noted as done is there, whole."""
    counts = []
    for calls in range(1, 40):
        folder = tmp_path / str(calls)
        folder.mkdir()
        child = os.fork()
        if child == 0:
            os.fsync = killer(calls)
            work = work_in(folder)
            for number in (2, 0, 3, 1):
                add(work, number)
            os._exit(0)
        killed = os.waitpid(child, 0)[1] != 0
        work = work_in(folder)
        counts.append(len(work.done))
        assert list(work.done) == [2, 0, 3, 1][: len(work.done)]
        for number in range(4):
            assert add(work, number) == (number not in [2, 0, 3, 1][: counts[-1]])
        assert np.array_equal(work.codes, CODES)
        assert np.array_equal(work.ids, IDS)
        work.remove()
        assert not list(folder.iterdir())
        if not killed:
            break
    assert sorted(counts) == counts
    assert set(counts) == set(range(5))


def test_work_that_is_damaged_is_done_again(tmp_path: Path) -> None:
    work = work_in(tmp_path)
    for number in range(4):
        add(work, number)
    work.close()
    with open(work.path / "codes.bin", "r+b") as file:
        file.seek(11)
        file.write(bytes([CODES[5, 1] ^ 1]))
    with open(work.path / "done.jsonl", "ab") as file:
        file.write(b'[99, "none"]\nnull\n[1, "cut')
    again = work_in(tmp_path)
    assert sorted(again.done) == [0, 2, 3]
    assert add(again, 1)
    again.close()
    assert len((again.path / "done.jsonl").read_text().splitlines()) == 4
    last = work_in(tmp_path)
    assert sorted(last.done) == [0, 1, 2, 3]
    assert np.array_equal(last.codes, CODES)
    with pytest.raises(ValueError, match=r"^cluster.encode: another process encodes into .*index$"):
        work_in(tmp_path)
    last.close()
    with pytest.raises(ValueError, match=r"^cluster.encode: .* holds the work of a call with another model; repeat"):
        work_in(tmp_path, {"model": "b"})


def test_a_full_disk_leaves_whole_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = work_in(tmp_path)
    add(work, 0)
    write_part = EncodeWork._write

    def full(self: EncodeWork, name: str, place: int, values: Any) -> None:
        write_part(self, name, place, values[: len(values) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(EncodeWork, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        add(work, 1)
    work.close()
    monkeypatch.setattr(EncodeWork, "_write", write_part)
    again = work_in(tmp_path)
    assert list(again.done) == [0]
    assert add(again, 1)
    again.close()


@pytest.fixture
def model() -> Any:
    return baselines.lsh(rows(100), 16)


class FakeRay:
    """In the place of ray, where none of it is reached."""


def test_arguments(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["fasthash.cluster.encode"], "ray_for", lambda function: FakeRay())
    write(tmp_path / "x.npy", rows(9), None, 9)
    source, out = tmp_path / "x.npy", tmp_path / "index"
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"model": 3}, TypeError, "model must be a fitted Hasher or LinearCodes, or the path of one, got int"),
        ({"model": Hasher(16)}, ValueError, "model must be fitted, got a Hasher before fit"),
        ({"block_rows": 0}, ValueError, "block_rows must be at least 1, got 0"),
        ({"workers": 0}, ValueError, "workers must be at least 1, got 0"),
        ({"gpus": -1}, ValueError, "gpus must be >= 0 and finite, got -1"),
        ({"key_column": "name"}, ValueError, "has no columns with names"),
    ]
    for wrong, kind, said in cases:
        with pytest.raises(kind) as caught:
            cluster.encode(**{"model": model, "source": source, "out": out, **wrong})
        assert said in str(caught.value)
        assert "cluster.encode: " in str(caught.value)
    HammingIndex(16).save(out)
    with pytest.raises(IndexFolderError, match="already holds an index; pass overwrite=True"):
        cluster.encode(model, source, out)


def test_the_index_of_done_work_is_made_again(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process killed after the index was written, before the work was removed: the same call ends it."""
    module = sys.modules["fasthash.cluster.encode"]
    monkeypatch.setattr(module, "ray_for", lambda function: FakeRay())
    X = rows(40_000)
    write(tmp_path / "x.npy", X, None, 9)
    calls = []

    def results(ray: Any, data: bytes, files: Any, blocks: Any, done: Any, *_: Any) -> Any:
        calls.append(len(blocks) - len(done))
        worker = object.__new__(module._Worker)
        worker.files, worker.model = files, model
        for number, block in enumerate(blocks):
            yield number, np.frombuffer(worker._encoded(block)[0], np.uint8), None
            yield number, np.frombuffer(worker._encoded(block)[0], np.uint8), None  # a block that comes twice

    monkeypatch.setattr(module, "_results", results)
    with monkeypatch.context() as patch:
        patch.setattr(EncodeWork, "remove", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cluster.encode(model, tmp_path / "x.npy", tmp_path / "index", block_rows=1, progress=False)
    assert len(HammingIndex.open(tmp_path / "index")) == len(X)
    index = cluster.encode(model, tmp_path / "x.npy", tmp_path / "index", block_rows=1, progress=False)
    assert calls == [3]
    assert np.array_equal(index.get(np.arange(len(X))), model.encode(X))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "x.npy"]
