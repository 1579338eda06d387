"""Folders of an EmbeddingIndex when a change is cut off: codes, keys, stored rows and encoder of one complete state."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedding_cases import ENCODERS, X, content, saved
from test_index_crash import Crashed, Disk, Steps

from fasthash import EmbeddingIndex, IndexFolderError
from fasthash.index.exchange import build

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the model of the disk is that of POSIX")

NAMES = [f"new {number}" for number in range(10)]
ACTIONS: dict[str, Any] = {
    "add": lambda index: index.add(X[:10] * 2, NAMES),
    "replace": lambda index: index.add(X[:10] * 2, NAMES, ids=np.arange(10), replace=True),
    "remove": lambda index: index.remove(keys=[f"row {number}" for number in range(10)]),
    "remove all": lambda index: index.remove(index.ids),
    "compact": lambda index: index.compact(),
}


def run(action: str, folder: Path) -> None:
    if action in ACTIONS:
        with EmbeddingIndex.open(folder, writable=True) as index:
            ACTIONS[action](index)
    elif action.startswith("build"):
        options: dict[str, Any] = {"refine": "int8", "overwrite": action == "build over", "progress": False}
        EmbeddingIndex.build(folder, X[:30], ENCODERS["lsh"], **options)
    else:
        index = EmbeddingIndex(ENCODERS["osq 2"], refine="float16", metric="l2")
        index.add(X[:20])
        index.save(folder, overwrite=action == "overwrite")


def state(folder: Path) -> Any:
    """The content of a folder that opens and verifies; None where there is no index (yet)."""
    if not (folder / "manifest.json").exists():
        return None
    index = EmbeddingIndex.open(folder)
    index.verify()
    return *content(index), repr(index.encoder), sum(segment.rows for segment in index.codes._contents.segments)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("start") / "index")


@pytest.fixture(params=[*ACTIONS, "overwrite", "save", "build", "build over"])
def case(request: pytest.FixtureRequest, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """(action, folder, state before, state after)"""
    monkeypatch.setattr(build, "_RUN_BYTES", 1000)  # a build writes several segments
    monkeypatch.setattr(build, "_KEYED_ROWS", 12)
    action, folder, before = request.param, tmp_path / "index", None
    if action not in ("save", "build"):
        shutil.copytree(start, folder)
        before = state(folder)
        shutil.copytree(start, tmp_path / "finished")
    run(action, tmp_path / "finished")
    after = state(tmp_path / "finished")
    assert after != before
    return action, folder, before, after


@pytest.mark.parametrize("failure", [Crashed, OSError])
def test_cut_off_at_any_step(case: Any, tmp_path: Path, failure: type[BaseException]) -> None:
    action, folder, before, after = case
    for allowed in itertools.count():
        copy = tmp_path / f"copy{allowed}"
        if folder.exists():
            shutil.copytree(folder, copy)
        names = set(os.listdir(copy)) if copy.exists() else set()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fasthash.embeddings.encoders.encoder_bytes", _bytes_in_memory)
            steps, message = Steps(patch, allowed, failure), None
            try:
                run(action, copy)
            except (Crashed, OSError, IndexFolderError) as error:
                message = str(error)
        if not steps.failed:
            break
        assert failure is Crashed or message is None or "No space left on device" in message
        assert state(copy) in (before, after)
        if state(copy) == before:
            if failure is OSError and copy.exists():
                assert set(os.listdir(copy)) - names <= {"lock"}
            run(action, copy)  # what was left does not stand in the way
        assert state(copy) == after
        shutil.rmtree(copy)
    assert allowed > 5


def _bytes_in_memory(encoder: Any) -> bytes:
    """The bytes of an encoder that were made before, so that steps are those of the index's folder alone."""
    return SAVED[repr(encoder)]


def _saved(encoder: Any) -> bytes:
    from fasthash.embeddings.encoders import encoder_bytes

    return encoder_bytes(encoder)


SAVED = {repr(encoder): _saved(encoder) for encoder in ENCODERS.values()}


@pytest.mark.parametrize("action", ["add", "overwrite", "build"])
def test_power_loss_at_any_moment(action: str, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were not flushed, and names that were not, may be missing or in parts: as in test_index_crash.py."""
    folder, before = tmp_path / "index", None
    if action == "build":
        folder.mkdir()
    else:
        shutil.copytree(start, folder)
        before = state(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fasthash.embeddings.encoders.encoder_bytes", _bytes_in_memory)
        disk = Disk(patch, folder, tmp_path / "graveyard")
        run(action, folder)
        disk.look()
    after, seen, crashed = state(folder), set(), tmp_path / "crashed"
    for number, moment in enumerate(disk.moments):
        for outcome in disk.outcomes(moment):
            last = number == len(disk.moments) - 1
            key = hash((last, *sorted(outcome.items())))
            if key not in seen:
                seen.add(key)
                shutil.rmtree(crashed, ignore_errors=True)
                crashed.mkdir()
                for name, data in outcome.items():
                    (crashed / name).write_bytes(data)
                found = state(crashed)
                assert found == after or (found == before and not last)
    assert len(seen) > 10
