"""Files that survive a crash: written aside, flushed to the disk, renamed; folders synced; one writer at a time."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


class LockedError(BlockingIOError):
    """Another descriptor holds the lock."""


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


@contextlib.contextmanager
def replaced_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` in one step when the block ends well, and is on the disk then.

    It is written aside, as .<name>.<8 hexadecimal digits>, and removed on any failure; `path` then stays as it was.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with new_file(aside) as file:
        yield file
    try:
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable (Windows does so by itself)."""
    if sys.platform != "win32":
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _sync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(path: Path) -> None:
    """Makes a folder and its parents where they are missing, durably; raises OSError."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_folder(folder.parent)


def lock_file(path: Path) -> int:
    """Locks a file, made where it is missing: gives the descriptor whose closing unlocks it.

    The system closes it when the process ends, however it ends. Raises LockedError where another descriptor holds the
    lock, OSError where the file cannot be opened for writing or locked.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, (BlockingIOError, PermissionError)):
            raise LockedError(error.errno, "another writer has it open", str(path)) from error
        raise
    return descriptor


def _sync(descriptor: int) -> None:
    if sys.platform == "darwin":  # there, fsync stops at the drive's own cache
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)
