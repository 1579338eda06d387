"""Files of data sets: there, or a clear error."""

from __future__ import annotations

from pathlib import Path


def existing(path: Path, name: str) -> Path:
    """The path; raises FileNotFoundError, naming function and path, where nothing is there."""
    if not path.exists():
        raise FileNotFoundError(f"{name}: {path} does not exist (give the folder that holds the data)")
    return path
