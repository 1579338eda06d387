"""The folder of a training run: what it was started with, where it stands, how it went, and the model."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fasthash import __version__, _ops
from fasthash._checkpoint import RUN, load_checkpoint, save_checkpoint
from fasthash._durable import Lock, LockedError, make_folder, replaced_file

FILES = ("config.json", "environment.json", "metrics.csv", "checkpoint.safetensors", "model.safetensors")
_EPOCHS = "train.epochs"
COLUMNS = ("epoch", "loss", "score", "lr", "seconds")


class RunFolder:
    """config.json, environment.json, metrics.csv and checkpoint.safetensors in a folder, which is made where missing.

    Every file is replaced in one step. With `write`, the folder is locked until `close`, and config and environment are
    written. Raises ValueError where the folder holds a run of another config, or another process has it open.
    """

    def __init__(self, path: str | PathLike[str], config: dict[str, Any], *, write: bool = True) -> None:
        self.path, self.config, self.write = Path(path), _plain(config), write
        self._lock: Lock | None = None
        if not write:
            return
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"train: run_dir must be a folder, got the file {self.path}")
        try:
            make_folder(self.path)
            self._lock = Lock(self.path / "lock")
        except LockedError:
            raise ValueError(f"train: run_dir {self.path}: another writer has it open") from None
        except OSError as error:
            raise ValueError(f"train: run_dir {self.path}: cannot be opened for writing ({error.strerror})") from None
        for name in FILES:
            for left in self.path.glob(f".{name}.????????"):  # what a killed process wrote aside
                left.unlink()

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The state after the last whole epoch; None where there is none."""
        path = self.path / "checkpoint.safetensors"
        try:
            found = load_checkpoint(path, RUN) if path.exists() else None
            if found is not None:
                self._check_config(found[1])
            if self.write:
                self._begin(0 if found is None else len(found[1]["metrics"]))
        except BaseException:
            self.close()
            raise
        return found

    def save(self, tensors: dict[str, Tensor], content: dict[str, Any]) -> None:
        """Writes the state after an epoch, of which content["metrics"] has one row for each epoch, and metrics.csv."""
        save_checkpoint(self.path / "checkpoint.safetensors", tensors, {**content, "config": self.config}, RUN)
        self.write_metrics(content["metrics"])

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Writes metrics.csv: the checkpoint is what counts, so the table is made of it."""
        table = io.StringIO()
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self._write("metrics.csv", table.getvalue())

    def close(self) -> None:
        """Unlocks the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _check_config(self, content: dict[str, Any]) -> None:
        if not isinstance(content.get("config"), dict) or not isinstance(content.get("metrics"), list):
            raise ValueError(f"train: {self.path / 'checkpoint.safetensors'} is damaged: it lacks config or metrics")
        then, now = _flat(content["config"]), _flat(self.config)
        for name in sorted(then.keys() | now.keys()):
            if then.get(name) != now.get(name):
                more = "; for more epochs begin a new run with these weights (load_weights)" if name == _EPOCHS else ""
                raise ValueError(
                    f"train: run_dir {self.path} holds a run with {name} {then.get(name)!r}, got {now.get(name)!r}: "
                    f"name another folder, or remove that one{more}"
                )

    def _begin(self, epochs: int) -> None:
        self._write("config.json", _json(self.config))
        path = self.path / "environment.json"
        starts = []
        if epochs:
            with contextlib.suppress(OSError, ValueError):
                starts = json.loads(path.read_text())
        self._write(path.name, _json([*starts, {"epochs_done": epochs, **environment()}]))

    def _write(self, name: str, text: str) -> None:
        with replaced_file(self.path / name) as file:
            file.write(text.encode())


@contextlib.contextmanager
def open_run(path: str | PathLike[str] | None, config: dict[str, Any], *, write: bool) -> Iterator[RunFolder | None]:
    """The RunFolder at `path`, closed at the end; None for None."""
    folder = None if path is None else RunFolder(path, config, write=write)
    try:
        yield folder
    finally:
        if folder is not None:
            folder.close()


def environment() -> dict[str, Any]:
    """Versions, machine and command line of this process, as JSON holds them."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": sys.argv,
        "fasthash": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "isa": _ops.isa_chosen(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def _plain(value: Any) -> Any:
    """As JSON gives it back: numpy numbers become Python's, tuples lists, other things their text."""
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    return _plain(value.item()) if isinstance(value, np.generic) else str(value)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {key: v for part, of in value.items() for key, v in _flat(of, f"{name}.{part}" if name else part).items()}
