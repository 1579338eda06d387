"""Arrays of .npy files, and of .npz archives with one array. Nothing is unpickled."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._tables.kinds import Kind, label


def read_array(path: Path, kind: Kind, function: str) -> NDArray[Any]:
    """The array of a .npy file, mapped, or the one array of an .npz archive, in memory; raises ValueError."""
    where = label(path, function)
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded as archive:
            if len(archive.files) != 1:
                names = ", ".join(archive.files)
                raise ValueError(
                    f"{where} holds {len(archive.files)} arrays ({names}), must hold one; save the array that you "
                    "need as .npy"
                )
            array: NDArray[Any] = archive[archive.files[0]]
            return array
    except (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        if str(error).startswith(where) or isinstance(error, FileNotFoundError):
            raise
        if any(word in str(error) for word in ("allow_pickle", "Object arrays", "Python objects")):
            raise ValueError(
                f"{where} is {kind.words} of Python objects, which fasthash does not unpickle; save it as numbers or "
                "text (array.astype(int), array.astype(str))"
            ) from None
        raise ValueError(f"{where} is not a whole .{kind.name} file of numbers ({error})") from error
