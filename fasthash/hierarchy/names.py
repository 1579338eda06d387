"""Names of classes: text or whole numbers."""

from __future__ import annotations

import re
from typing import Any

Name = str | int
Edge = tuple[Name, Name]
WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]*")  # text that is an int as Python writes it: 007 is a name


def to_name(label: Any) -> Name:
    """A label as Python str or int. Raises TypeError for other kinds (3.0 and True would pass for 3 and 1)."""
    if getattr(label, "ndim", None) == 0 and hasattr(label, "item"):
        label = label.item()
    if isinstance(label, str):
        return str(label)
    if isinstance(label, int) and not isinstance(label, bool):
        return int(label)
    raise TypeError(f"Hierarchy: names must be str or int, got {label!r} ({type(label).__name__})")
