"""How docstrings become pages: examples and indented formulas are set as code. mkdocs.yml names this file."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Puts each run of `>>>` lines of a docstring, with what it prints, into a fenced block."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """The text with its examples in fences. An example ends with an empty line, as doctest has it.

    >>> print(fenced("Adds.\\n\\n>>> 1 + 1\\n2").replace("`", "'"))
    Adds.
    <BLANKLINE>
    '''pycon
    >>> 1 + 1
    2
    '''
    """
    return re.sub(r"(?m)^( *)>>> (?:.*\S.*\n?)+", _fence, text)


def _fence(match: re.Match[str]) -> str:
    return f"{match[1]}```pycon\n{match[0].rstrip()}\n{match[1]}```\n"
