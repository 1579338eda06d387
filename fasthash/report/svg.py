"""Plots as SVG elements, with axes; colours are classes, which the page's style sheet defines."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 440, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 10, 42  # around the area of the data

Array = NDArray[Any]


class Plot:
    """One pair of axes: x and y ranges, and what is drawn in them, in the order of the calls.

    >>> "<polyline" in Plot("radius", "part", (0, 64), (0, 1)).line([0, 64], [0, 1], "measure").svg("a line")
    True
    """

    def __init__(
        self, x_name: str, y_name: str, x: tuple[float, float], y: tuple[float, float], *, ticks: bool = True
    ) -> None:
        self.x = x if x[1] > x[0] else (x[0] - 0.5, x[0] + 0.5)
        self.y = y if y[1] > y[0] else (y[0], y[0] + 1)
        self.parts: list[str] = []
        self.frame = list(self._frame(x_name, y_name, ticks))

    def across(self, value: Any) -> Any:
        """x of data -> x of the drawing."""
        return LEFT + (value - self.x[0]) / (self.x[1] - self.x[0]) * (WIDTH - LEFT - RIGHT)

    def up(self, value: Any) -> Any:
        """y of data -> y of the drawing."""
        return HEIGHT - BOTTOM - (value - self.y[0]) / (self.y[1] - self.y[0]) * (HEIGHT - TOP - BOTTOM)

    def line(self, x: Any, y: Any, colour: str, dashed: bool = False) -> Plot:
        points = " ".join(
            f"{a:.1f},{b:.1f}" for a, b in zip(self.across(np.array(x)), self.up(np.array(y)), strict=True)
        )
        self.parts.append(f'<polyline class="line {colour}{" dashed" * dashed}" points="{points}"/>')
        return self

    def steps(self, edges: Array, heights: Array, colour: str, dashed: bool = False) -> Plot:
        """A histogram as an outline: heights [n] between edges [n + 1]."""
        heights = np.concatenate([[self.y[0]], heights, [self.y[0]]])
        x = np.repeat(edges, 2)
        return self.line(x, np.repeat(heights, 2)[1:-1], colour, dashed)

    def bars(self, heights: Array, colour: str, titles: Sequence[str]) -> Plot:
        """A bar for each of n heights, at x = 0 to n; a pointer that rests on one sees its title."""
        base, width = self.up(max(self.y[0], 0)), (WIDTH - LEFT - RIGHT) / (self.x[1] - self.x[0])
        for number, (height, title) in enumerate(zip(heights.tolist(), titles, strict=True)):
            top = self.up(height)
            place = f'x="{self.across(number):.1f}" y="{top:.1f}" width="{max(0.6 * width, width - 1):.2f}"'
            self.parts.append(
                f'<rect class="fill {colour}" {place} height="{base - top:.1f}"><title>{escape(title)}</title></rect>'
            )
        return self

    def dots(self, points: Array, colour: str, groups: Sequence[Any], size: float, mark: str = "circle") -> Plot:
        """A dot for each point [n, 2], of a class number each (None: without), which the page's filter lights."""
        for (x, y), group in zip(points.tolist(), groups, strict=True):
            a, b = self.across(x), self.up(y)
            own = "" if group is None else f' data-class="{int(group)}"'
            shape = f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{size}"'
            if mark == "diamond":
                shape = f'<path d="M{a:.1f} {b - size:.1f}l{size} {size}l-{size} {size}l-{size} -{size}z"'
            self.parts.append(f'{shape} class="dot {colour}"{own}/>')
        return self

    def level(self, y: float) -> Plot:
        """A thin line across, at a value worth knowing."""
        self.parts.append(f'<path class="level" d="M{LEFT} {self.up(y):.1f}H{WIDTH - RIGHT}"/>')
        return self

    def marker(self) -> Plot:
        """A line upright that the page's slider moves to the radius."""
        self.parts.append(
            f'<line class="marker" y1="{TOP}" y2="{HEIGHT - BOTTOM}" x1="{LEFT}" x2="{LEFT}" '
            f'data-from="{self.across(0):.2f}" data-each="{self.across(1) - self.across(0):.6f}"/>'
        )
        return self

    def svg(self, what: str) -> str:
        """The element; what: said to those who do not see it."""
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(what)}">'
            f"{''.join(self.frame)}{''.join(self.parts)}</svg>"
        )

    def _frame(self, x_name: str, y_name: str, ticks: bool) -> Iterable[str]:
        bottom, middle = HEIGHT - BOTTOM, (TOP + HEIGHT - BOTTOM) / 2
        yield f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{WIDTH - RIGHT}"/>'
        if ticks:
            for value in steps(*self.x):
                x = self.across(value)
                yield f'<path class="axis" d="M{x:.1f} {bottom}v4"/>'
                yield f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{value:,.6g}</text>'
            for value in steps(*self.y):
                y = self.up(value)
                yield f'<path class="axis" d="M{LEFT} {y:.1f}h-4"/>'
                yield f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{value:,.6g}</text>'
        yield f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_name)}</text>'
        yield f'<text transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">{escape(y_name)}</text>'


def steps(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from low to high, at most so many.

    >>> steps(0, 64)
    [0.0, 20.0, 40.0, 60.0]
    """
    raw = (high - low) / (most - 1)
    size = 10.0 ** np.floor(np.log10(raw))
    size *= next(factor for factor in (1, 2, 5, 10) if factor * size >= raw * (1 - 1e-9))
    first = np.ceil(low / size - 1e-9)
    values = (first + np.arange(most + 1)) * size
    return [float(round(value, 12)) + 0.0 for value in values if value <= high + 1e-9 * size]


def heat_map(values: Array) -> str:
    """Values [n, m] in 0 .. 1 as a data URI of a PNG: white at 0, nearly black at 1."""
    pixels = (255 - 221 * np.clip(values, 0, 1)).round().astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
