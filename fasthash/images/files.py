"""Which pictures there are: the files of a folder, or the rows of a table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


def image_files(folder: str | PathLike[str]) -> list[str]:
    """Paths of the pictures in a folder, at any depth, relative to it with "/" between: sorted, and not opened.

    What counts is the suffix (.jpg, .png, .webp, .bmp, .gif, .tif ...). Hidden files and folders do not count, links to
    folders are not followed. Raises FileNotFoundError, and ValueError for a folder without pictures and for a name that
    is not UTF-8, since a key is text.

    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> (folder / "cats").mkdir(); (folder / "cats" / "1.jpg").touch(); (folder / "notes.txt").touch()
    >>> image_files(folder)
    ['cats/1.jpg']
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"image_files: {folder} is not a folder")
    found = sorted(_walk(str(root), ""))
    if not found:
        raise ValueError(f"image_files: {folder} must hold pictures ({', '.join(SUFFIXES)}), got none")
    for key in found:
        if any("\ud800" <= letter <= "\udfff" for letter in key):  # bytes that are no UTF-8, as Python reads them
            raise ValueError(f"image_files: {folder}: names of pictures must be UTF-8, got {key!r}: rename it")
    return found


def _walk(folder: str, before: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, f"{before}{entry.name}/")
            elif entry.name.lower().endswith(SUFFIXES) and entry.is_file():
                yield before + entry.name
