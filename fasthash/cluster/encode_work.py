"""The work of an encoding that has not ended: codes by their places, and which blocks are done.

A folder `.NAME.encoding` beside the index NAME holds it until the index is there. A block counts as done when a line of
`done.jsonl` says so, and the line is written after the codes are on the disk. So a process that is killed at any moment
leaves whole blocks only.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from fasthash._durable import Lock, LockedError, make_folder, replaced_file, sync_folder
from fasthash.cluster.row_files import RowBlock

_DONE = "done.jsonl"


class EncodeWork:
    """Codes [N, W] and ids [N], filled block by block; see this file's first lines.

    Raises ValueError where the folder holds the work of another plan, or another process works in it.
    """

    def __init__(self, out: Path, plan: dict[str, Any], blocks: list[RowBlock], width: int, ids: bool, function: str):
        self.path = out.parent / f".{out.name}.encoding"
        self._blocks, self._function = blocks, function
        rows = blocks[-1].place + blocks[-1].stop - blocks[-1].start
        try:
            make_folder(self.path)
            self._lock = Lock(self.path / "lock")
        except LockedError:
            raise ValueError(f"{function}: another process encodes into {out}") from None
        try:
            self._check(json.loads(json.dumps(plan)))
            self.codes = self._array("codes.bin", (rows, width), np.dtype(np.uint8))
            self.ids = self._array("ids.bin", (rows,), np.dtype("<i8")) if ids else None
            self.done = self._whole_blocks()
            with replaced_file(self.path / _DONE) as file:  # without a line that a crash cut
                file.writelines(self._line(number, checksum) for number, checksum in self.done.items())
            self._log = open(self.path / _DONE, "ab", buffering=0)  # noqa: SIM115
        except BaseException:
            self._lock.close()
            raise

    @property
    def may_replace(self) -> bool:
        """Whether an earlier process began to make the index of this work, so that what is there is its own."""
        return (self.path / "building").exists()

    def add(self, number: int, codes: NDArray[np.uint8], ids: NDArray[np.int64] | None) -> bool:
        """Takes a block in, durably; gives whether it was not done before."""
        if number in self.done:
            return False
        block = self._blocks[number]
        self._write("codes.bin", block.place * self.codes.shape[1], codes)
        if ids is not None:
            self._write("ids.bin", block.place * 8, ids)
        checksum = self._checksum(number)
        self._log.write(self._line(number, checksum))
        os.fsync(self._log.fileno())
        self.done[number] = checksum
        return True

    def begin_index(self) -> None:
        """Notes that all blocks are done, and that the index is being made."""
        with replaced_file(self.path / "building"):
            pass

    def remove(self) -> None:
        """Removes the folder: the index is there."""
        self.close()
        shutil.rmtree(self.path)
        sync_folder(self.path.parent)

    def close(self) -> None:
        """Leaves the folder for another call to go on."""
        self._log.close()
        self._lock.close()

    def _check(self, plan: dict[str, Any]) -> None:
        path = self.path / "plan.json"
        if path.exists():
            then = json.loads(path.read_text())
            for name in plan:
                if then.get(name) != plan[name]:
                    raise ValueError(
                        f"{self._function}: {self.path} holds the work of a call with another {name}; repeat that "
                        "call to finish it, or remove the folder"
                    )
            return
        with replaced_file(path) as file:
            file.write(json.dumps(plan, indent=2).encode())

    def _array(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.memmap[Any, Any]:
        path = self.path / name
        size = int(np.prod(shape)) * dtype.itemsize
        if not path.exists() or path.stat().st_size != size:
            with open(path, "wb") as file:
                file.truncate(size)
                os.fsync(file.fileno())
            sync_folder(self.path)
        return np.memmap(path, dtype, "r", shape=shape)

    def _write(self, name: str, place: int, values: NDArray[Any]) -> None:
        """Not by the map: where the disk is full, that would kill the process instead of raising OSError."""
        with open(self.path / name, "r+b") as file:
            file.seek(place)
            file.write(np.ascontiguousarray(values).tobytes())
            file.flush()
            os.fsync(file.fileno())

    def _whole_blocks(self) -> dict[int, str]:
        """The blocks that are done, of which every byte is what it was."""
        found: dict[int, str] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in (self.path / _DONE).read_bytes().splitlines():
                with contextlib.suppress(ValueError, TypeError):
                    number, checksum = json.loads(line)
                    if 0 <= number < len(self._blocks) and self._checksum(number) == checksum:
                        found[number] = checksum
        return found

    def _line(self, number: int, checksum: str) -> bytes:
        return f"{json.dumps([number, checksum])}\n".encode()

    def _checksum(self, number: int) -> str:
        block = self._blocks[number]
        span = slice(block.place, block.place + block.stop - block.start)
        digest = xxhash.xxh3_128(self.codes[span].tobytes())
        if self.ids is not None:
            digest.update(self.ids[span].tobytes())
        return digest.hexdigest()
