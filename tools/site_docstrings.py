"""How docstrings become pages: examples are set as code. mkdocs.yml names this file."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Puts each run of `>>>` lines of a docstring, with what it prints, into a fenced block.

    A text that begins with >, as in "eps: >= 0", is a quotation in Markdown: it gets a backslash. What stands before a
    colon under "Returns:" is taken for a type, so the function's own type is put there.
    """

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring:
            text = re.sub(r"(?m)^( *(?:\w[\w, ]*: )?)>(?!>>)", r"\1\\>", obj.docstring.value)
            if obj.is_function and obj.returns:
                text = re.sub(r"(?m)^( *Returns:\n +)(?=.*:)", lambda own: f"{own[1]}{obj.returns}: ", text)
            obj.docstring.value = fenced(text)


def fenced(text: str) -> str:
    """The text with its examples in fences. An example ends with an empty line, as doctest has it."""
    return re.sub(r"(?m)^( *)>>> (?:.*\S.*\n?)+", _fence, text)


def _fence(match: re.Match[str]) -> str:
    return f"{match[1]}```pycon\n{match[0].rstrip()}\n{match[1]}```\n"
