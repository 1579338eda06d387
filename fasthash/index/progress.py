"""Progress bars of long work on an index."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

from tqdm import tqdm


def progress_bar(what: str, total: int | None, unit: str, progress: bool | None) -> Any:
    """A bar on stderr, a context manager with `update(n)`. progress=None: only where stderr is a terminal."""
    if progress is False:  # even a hidden bar starts a thread, which a fork would not survive well
        return contextlib.nullcontext(SimpleNamespace(update=unseen))
    return tqdm(total=total, desc=what, unit=unit, unit_scale=True, disable=None if progress is None else False)


def unseen(count: int) -> None:
    """Takes the place of a bar's `update` where there is none."""
