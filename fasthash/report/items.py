"""Items as the page shows them: a text, or a thumbnail of a picture, and the name."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from os import PathLike
from typing import Any

from fasthash.images.reading import ImageError, pillow, read_image

SIDE = 72  # pixels of a thumbnail
LONGEST = 400  # characters of a text, or a name, that are shown


@dataclass
class Items:
    """How rows are shown. texts [N]; or a folder that the names are files of; or neither: names alone.

    broken: a line for each picture that could not be read.
    """

    texts: Sequence[str] | None = None
    folder: str | PathLike[str] | None = None
    broken: dict[str, str] = field(default_factory=dict)
    _made: dict[str, str] = field(default_factory=dict)

    def html(self, row: int, name: str) -> str:
        """The item as HTML, of which nothing is markup but ours."""
        shown = escape(_cut(name))
        if self.texts is not None:
            return f'<span class="text">{escape(_cut(str(self.texts[row])))}</span><span class="name">{shown}</span>'
        if self.folder is None:
            return f'<span class="text">{shown}</span>'
        if name not in self._made:
            self._made[name] = self._picture(name)
        return f'{self._made[name]}<span class="name" title="{escape(name)}">{shown}</span>'

    def _picture(self, name: str) -> str:
        try:
            if os.path.isabs(name) or os.path.normpath(name).split(os.sep)[0] == os.pardir:
                raise ValueError(f"{name}: outside of the folder of pictures")
            data = thumbnail(os.path.join(os.fspath(self.folder or ""), name))
        except (ImageError, ValueError) as error:  # ValueError: a name that is none for a file, with a zero byte say
            why = str(error).rpartition(": ")[2]
            self.broken[name] = why
            return f'<span class="broken">no picture: {escape(_cut(why))}</span>'
        return f'<img src="{data}" alt="{escape(_cut(name))}" width="{SIDE}" height="{SIDE}">'


def thumbnail(path: str, side: int = SIDE) -> str:
    """The middle square of a picture as a data URI of JPEG. Raises ImageError, and ImportError without Pillow."""
    pixels = read_image(path, side).permute(1, 2, 0).numpy()
    out = io.BytesIO()
    image: Any = pillow().fromarray(pixels)
    image.save(out, format="JPEG", quality=75, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
