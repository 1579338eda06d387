"""What the plots of the report are made of, and how matplotlib draws them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthash.codes import unpack_bits
from fasthash.metrics import precision_recall_curve
from fasthash.report.colours import COLOURS, METHODS

Array = NDArray[Any]


class Ranked(NamedTuple):
    """A method whose ranking is drawn: metric "hamming" for packed codes, else that of real-valued items."""

    method: str
    queries: Array
    database: Array
    metric: str
    bit_weights: list[tuple[int, int]] | None


@dataclass(frozen=True)
class Plots:
    """The data of the plots."""

    outputs: dict[tuple[str, bool], Array]  # (learned from, with KL term) -> outputs float32 [N, bits]
    codes: dict[str, Array]  # method -> codes uint8 [N, W]
    ranked: list[Ranked]
    query_labels: Array
    database_labels: Array


def draw(plots: Plots) -> str | None:
    """The figure as an SVG element, or None without matplotlib. Legends are outside of the axes: they hide no curve."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        return None
    with rc_context({"svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(10.5, 9), layout="constrained")  # not pyplot's: no window system, no global state
        axes = figure.subplots(2, 2)
        sources = {source: None for source, _ in plots.outputs}
        for axis, source in zip(axes[0], [*sources, None][:2], strict=True):
            if source is None:
                axis.set_axis_off()
            else:
                _draw_outputs(axis, source, plots)
        _draw_balance(axes[1, 0], plots)
        _draw_curves(axes[1, 1], plots)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    svg = out.getvalue()
    return svg[svg.index("<svg") :]


def _draw_outputs(axis: Any, source: str, plots: Plots) -> None:
    """Histogram of outputs, with the KL term, and without where there are such."""
    for kl, color in ((True, COLOURS["query"][0]), (False, COLOURS["database"][0])):
        if (source, kl) not in plots.outputs:
            continue
        values = plots.outputs[source, kl].ravel()
        moved = float(np.abs(values - (values > 0.5)).mean())
        label = f"KL {'on' if kl else 'off'}: mean |z - round z| = {moved:.3f}"
        part = np.full(len(values), 1 / len(values))
        axis.hist(values, bins=50, range=(0, 1), weights=part, histtype="step", color=color, label=label)
    axis.set(title=f"outputs before rounding, learned from {source}", xlabel="output", ylabel="part of outputs")
    axis.set_yscale("log")
    _legend(axis)


def _draw_balance(axis: Any, plots: Plots) -> None:
    """Part of items that have each bit, in ascending order: 0.5 everywhere is a bit used to the full."""
    for name, codes in plots.codes.items():
        ones = unpack_bits(codes, 8 * codes.shape[1]).mean(axis=0)
        axis.plot(np.sort(ones), label=name, color=_colours(plots)[name])
    axis.axhline(0.5, color="0.7", linewidth=0.8)
    axis.set(title="bit balance", xlabel="bits, sorted", ylabel="part of texts with the bit on", ylim=(0, 1))
    _legend(axis)


def _draw_curves(axis: Any, plots: Plots) -> None:
    """Precision against recall, along the ranking."""
    for own in plots.ranked:
        curve = precision_recall_curve(
            own.queries,
            own.database,
            plots.query_labels,
            plots.database_labels,
            metric=None if own.metric == "hamming" else own.metric,
            bit_weights=own.bit_weights,
        )
        axis.plot(curve.recall, curve.precision, label=own.method, color=_colours(plots)[own.method])
    axis.set(title="precision and recall, same intent", xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1))
    _legend(axis)


def _legend(axis: Any) -> None:
    """Below the axes."""
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), frameon=False)


def _colours(plots: Plots) -> dict[str, str]:
    """A colour for each method, the same in every plot."""
    names = dict.fromkeys([own.method for own in plots.ranked] + list(plots.codes))
    return {name: METHODS[number % len(METHODS)] for number, name in enumerate(names)}
