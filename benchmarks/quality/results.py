"""The results on disk: one JSON-lines file for each task, one line for each run, tuning and set of floors.

A line is a JSON object. "kind" says what it holds:

- "floors": what random ranking, coarse labels and input cosine give on the task;
- "run": one method trained with `bits` and `seed`, and its metrics;
- "tuning": the settings of one method that were tried on validation data at `bits`, and their scores.

`kind`, `method`, `bits` and `seed` identify a line within its task; lines are in this order.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.kit import RESULTS
from fasthash._durable import replaced_file

FOLDER = RESULTS / "quality"
Line = dict[str, Any]


def read(folder: Path, task: str) -> list[Line]:
    """The lines of one task, in order; none where there is no file."""
    path = folder / f"{task}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def read_all(folder: Path) -> dict[str, list[Line]]:
    """The lines of every task, in the order of file names."""
    return {path.stem: read(folder, path.stem) for path in sorted(folder.glob("*.jsonl"))}


def find(lines: list[Line], **wanted: Any) -> Line | None:
    """The first line with these values."""
    return next((line for line in lines if all(line.get(name) == value for name, value in wanted.items())), None)


def put(folder: Path, line: Line) -> None:
    """Adds a line to the file of its task; a line of the same identity is replaced.

    The file is replaced as a whole, so a reader sees the old one or the new one. Commands that run at the same time
    wait for each other.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        lines = {_identity(known): known for known in read(folder, line["task"])}
        lines[_identity(line)] = line
        text = "".join(json.dumps(each, allow_nan=False) + "\n" for _, each in sorted(lines.items()))
        path = folder / f"{line['task']}.jsonl"
        with replaced_file(path) as file:
            file.write(text.encode())


def _identity(line: Line) -> tuple[str, str, int, int]:
    return line["kind"], line.get("method", ""), line.get("bits", 0), line.get("seed", 0)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One writer at a time in a folder. The lock is the folder's own and ends with the process; Windows has none."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
