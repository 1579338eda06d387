"""Progress bars of long work on an index."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


def progress_bar(what: str, total: int | None, unit: str, progress: bool | None) -> Any:
    """A bar on stderr, a context manager with `update(n)`. progress=None: only where stderr is a terminal."""
    hidden = None if progress is None else not progress
    return tqdm(total=total, desc=what, unit=unit, unit_scale=True, disable=hidden)


def unseen(count: int) -> None:
    """Takes the place of a bar's `update` where there is none."""
