"""Files that survive a crash: written aside, flushed to the disk, renamed; folders synced; one writer at a time."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import weakref
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


class Lock:
    """A file, made where it is missing, that this process has locked until `close`.

    Ours, because the standard library has no lock of files for all systems, and a package for these few lines would be
    one more that every user installs.

    The system unlocks it when the process ends, however it ends, and a Lock that is forgotten unlocks it too. A forked
    child does not hold it: the lock would live on in a child that the parent does not know of. Raises LockedError where
    another Lock holds it, OSError where the file cannot be opened for writing or locked.
    """

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        self._close = weakref.finalize(self, _unlock, descriptor, os.getpid())
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            if isinstance(error, (BlockingIOError, PermissionError)):
                raise LockedError(error.errno, "another writer has it open", str(path)) from error
            raise
        _locks.add(self)

    @property
    def held(self) -> bool:
        """Whether this process still holds it."""
        return self._close.alive

    def close(self) -> None:
        """Unlocks it; does nothing the second time."""
        self._close()


def _unlock(descriptor: int, process: int) -> None:
    """Unlocks the file for all descriptors of the lock, those in children too; in a child only closes its own."""
    try:
        if sys.platform != "win32" and os.getpid() == process:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


_locks: weakref.WeakSet[Lock] = weakref.WeakSet()  # those that a child would inherit


def _close_inherited() -> None:
    for lock in list(_locks):
        lock.close()  # the child's descriptor: the parent's lock stays


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)


def _sync(descriptor: int) -> None:
    if sys.platform == "darwin":  # there, fsync stops at the drive's own cache
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)
