"""Writing that survives a crash: new files flushed to the disk, folders synced, one writer at a time."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fasthash.index.untrusted import IndexFolderError


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A new file to write, on the disk when the block ends; on any failure it is removed.

    Raises FileExistsError where the name is taken. The name itself is durable only after sync_folder.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            _sync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable (Windows does so by itself)."""
    if sys.platform != "win32":
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _sync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(path: Path) -> None:
    """Makes a folder and its parents where they are missing, durably."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            sync_folder(folder.parent)
    except OSError as error:
        raise IndexFolderError(f"{path}: cannot be made a folder ({error.strerror})") from error


def lock_file(path: Path) -> int:
    """Locks a file, made where it is missing: gives the descriptor whose closing unlocks it.

    The system closes it when the process ends, however it ends. Raises IndexFolderError, naming the folder, where
    another descriptor holds the lock or the folder cannot be written.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        raise IndexFolderError(f"{path.parent}: cannot be opened for writing ({error.strerror})") from error
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if not isinstance(error, (BlockingIOError, PermissionError)):
            raise IndexFolderError(f"{path.parent}: cannot be locked for writing ({error.strerror})") from error
        raise IndexFolderError(f"{path.parent}: another writer has it open") from error
    return descriptor


def _sync(descriptor: int) -> None:
    if sys.platform == "darwin":  # there, fsync stops at the drive's own cache
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)
