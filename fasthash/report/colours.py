"""The colours of all plots: those of Okabe & Ito, which colour-blind readers can tell apart, one for each meaning."""

from __future__ import annotations

# meaning -> colour on a light page, on a dark one
COLOURS = {
    "right": ("#0072b2", "#56b4e9"),  # of the query's class
    "wrong": ("#d55e00", "#f0894a"),  # of another class
    "query": ("#b3578d", "#e39bc4"),
    "database": ("#7a7a7a", "#a0a0a0"),
    "measure": ("#222222", "#dddddd"),  # scores and outputs
}
# Of methods, in one order in every plot.
METHODS = ("#222222", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#999999")


def style() -> str:
    """The colours as custom properties of CSS."""
    light, dark = (" ".join(f"--{name}: {pair[scheme]};" for name, pair in COLOURS.items()) for scheme in (0, 1))
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
