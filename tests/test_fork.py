"""Forked children: every public function works in one."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fasthash import HammingIndex, IndexFolderError
from fasthash.train.run_folder import RunFolder

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
HERE = Path(__file__).parent
CODES = np.random.default_rng(0).integers(0, 256, (100, 8), dtype=np.uint8)


@contextlib.contextmanager
def a_child() -> Iterator[int]:
    """A forked child that sleeps, as a DataLoader's worker may, until the block ends."""
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def in_a_child(run: Callable[[], object]) -> str:
    """What `run` gives or raises in a forked child, as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = repr(run())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writing, text.encode()[:60_000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        text = file.read().decode()
    os.waitpid(child, 0)
    return text


@pytest.mark.parametrize("how", ["close", "with", "del"])
def test_a_childs_life_does_not_keep_the_writers_lock(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "index"
    HammingIndex.build(folder, CODES, progress=False)
    writer = HammingIndex.open(folder, writable=True)
    with a_child():
        with pytest.raises(IndexFolderError, match="another writer has it open"):
            HammingIndex.open(folder, writable=True)  # the child did not unlock the parent's
        if how == "close":
            writer.close()
        elif how == "with":
            with writer:
                pass
        else:
            del writer
            gc.collect()
        with HammingIndex.open(folder, writable=True) as other:
            other.add(CODES)


def test_a_childs_life_does_not_keep_a_run_folders_lock(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, {"a": 1})
    with a_child():
        with pytest.raises(ValueError, match="another writer has it open"):
            RunFolder(tmp_path, {"a": 1})
        run.close()
        RunFolder(tmp_path, {"a": 1}).close()


@pytest.mark.parametrize(
    "use",
    [
        lambda index: index.add(CODES),
        lambda index: index.add(CODES[:0]),
        lambda index: index.remove([1]),
        lambda index: index.remove([999]),
        lambda index: index.compact(),
        lambda index: index.build_mih(),
    ],
    ids=["add", "add nothing", "remove", "remove nothing", "compact", "build_mih"],
)
def test_a_writer_that_a_child_inherits_raises(tmp_path: Path, use: Callable[[HammingIndex], object]) -> None:
    HammingIndex.build(tmp_path / "index", CODES, progress=False)
    with HammingIndex.open(tmp_path / "index", writable=True) as writer:
        found = in_a_child(lambda: use(writer))
        assert found.startswith("IndexFolderError: ")
        assert "this process is a fork of it" in found
        assert in_a_child(lambda: len(writer.search(CODES[:3], 2).ids)) == "3"  # it can be searched
        assert "another writer has it open" in in_a_child(lambda: HammingIndex.open(tmp_path / "index", writable=True))
        assert in_a_child(writer.close) == "None"
        with pytest.raises(IndexFolderError, match="another writer has it open"):
            HammingIndex.open(tmp_path / "index", writable=True)
        writer.add(CODES)


def test_a_child_may_open_the_folder_that_its_parent_has_closed(tmp_path: Path) -> None:
    HammingIndex.build(tmp_path / "index", CODES, progress=False)
    writer = HammingIndex.open(tmp_path / "index", writable=True)
    writer.close()

    def add() -> int:
        with HammingIndex.open(tmp_path / "index", writable=True) as own:
            return len(own.add(CODES))

    assert in_a_child(add) == "100"


def test_every_public_function_works_in_a_child_of_a_parent_that_used_openmp() -> None:
    command = [sys.executable, "fork_all.py"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
