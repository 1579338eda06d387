"""Warnings of this package: they point at the user's own line, however many of our frames are between."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

_OURS = ("fasthash", "contextlib", "torch")  # packages whose frames are not the user's


class FasthashWarning(UserWarning):
    """Warns of input that is accepted but may be wrong; the command line shows it as one line."""


def warn(message: str) -> None:
    """Warns whoever called this package. A command counts as the caller: the frames of `fasthash.cli` are not ours."""
    frame: FrameType | None = sys._getframe(1)
    level = 2
    while frame is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, FasthashWarning, stacklevel=level)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in _OURS and not module.startswith("fasthash.cli")
