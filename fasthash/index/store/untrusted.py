"""Reading files that may be damaged or hostile: regular files, plain names, strict JSON, nothing unpickled."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

from fasthash.index.errors import IndexFolderError as IndexFolderError

# Letters that mean nothing to any file system: no separators, drives, hidden files or "..".
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


# The folder that links may lead into, where there is one: set by the reader for as long as it opens files.
_links_within: ContextVar[Path | None] = ContextVar("links_within", default=None)


@contextlib.contextmanager
def links_within(folder: Path | None) -> Iterator[None]:
    """Lets `open_regular` follow symbolic links whose end is inside a folder; None: none at all."""
    token = _links_within.set(folder)
    try:
        yield
    finally:
        _links_within.reset(token)


def open_regular(path: Path) -> tuple[int, int]:
    """Opens a file of an index for reading: gives (descriptor, size in bytes).

    Raises FileNotFoundError where there is none, IndexFolderError for a symbolic link (unless `links_within` allows
    it), a pipe, a folder or an unreadable file (a link could lead out of the folder, a pipe would block).
    """
    allowed = _links_within.get()
    if allowed is not None and path.is_symlink():
        path = _end_of_link(path, allowed)
    flags = os.O_RDONLY
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):
        flags |= getattr(os, name, 0)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        if path.is_symlink():
            raise IndexFolderError(
                f"{path}: a symbolic link, which is not allowed in an index; copy the folder with cp -rL, which "
                "follows links, or open it with links_within=DIR, where DIR is the folder that holds the files"
            ) from error
        raise IndexFolderError(f"{path}: cannot be read ({error.strerror})") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise IndexFolderError(f"{path}: not a regular file")
    return descriptor, status.st_size


def _end_of_link(path: Path, allowed: Path) -> Path:
    try:
        end = path.resolve(strict=True)
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError) as error:  # a loop of links
        raise IndexFolderError(f"{path}: a symbolic link that leads nowhere ({error})") from error
    if not end.is_relative_to(allowed.resolve()):
        raise IndexFolderError(f"{path}: a symbolic link that ends outside {allowed}, at {end}")
    return end


def read_small(path: Path, limit: int) -> bytes:
    """Reads a whole file of at most `limit` bytes; raises as open_regular does, IndexFolderError for a larger one."""
    descriptor, size = open_regular(path)
    with os.fdopen(descriptor, "rb") as file:
        if size > limit:
            raise IndexFolderError(f"{path}: {size} bytes, more than the {limit} that such a file may have")
        return file.read(limit)


def parse_json(text: bytes, where: str) -> dict[str, Any]:
    """Parses a JSON object; raises IndexFolderError for anything else, for repeated keys and for NaN or infinity."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a key is repeated")
        return result

    def no_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    try:
        document = json.loads(text.decode("utf-8"), object_pairs_hook=unique, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise IndexFolderError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(document, dict):
        raise IndexFolderError(f"{where}: must hold a JSON object, got {type(document).__name__}")
    return document


def whole_number(value: Any, low: int, high: int, where: str) -> int:
    """Checks that a value read from JSON is an integer in low..high (true and 1.0 are not)."""
    if type(value) is not int or not low <= value <= high:
        raise IndexFolderError(f"{where}: must be an integer between {low} and {high}, got {shorten(value)}")
    return value


def plain_name(value: Any, where: str) -> str:
    """Checks that a value is the name of a file in the folder itself, which can lead nowhere else."""
    if not isinstance(value, str) or not _PLAIN_NAME.fullmatch(value):
        raise IndexFolderError(f"{where}: must be the plain name of a file in the folder, got {shorten(value)}")
    return value


def shorten(value: Any) -> str:
    """The value as an error message shows it: at most 80 characters, whatever the file holds."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
