"""What Class Anchor Margin is meant to show on task a, and whether the runs of class_anchors.py do."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

CHANGES = (  # what is changed, the run without the change, the run with it
    ("no repeller", "whole", "no repeller"),
    ("no repeller and no minimum norm (the centre loss)", "whole", "centre loss"),
    ("anchors begin near zero", "whole", "whole, from near zero"),
    ("no repeller, where anchors begin near zero", "whole, from near zero", "no repeller, from near zero"),
)


def class_anchors_acceptance(study: dict[str, Any]) -> list[str]:
    """Markdown: the acceptance sentences with pass or fail, what each change does, what a step costs.

    study: the contents of benchmarks/results/class-anchors.json.
    """
    lines = [
        "Acceptance of Class Anchor Margin. Its outputs, by L2, have at least the mAP of CE's outputs, and codes keep "
        "0.97 of this mAP. Without the repeller the anchors collapse: their mean distance falls below a tenth, and mAP "
        "falls by at least 0.05. A search in two stages loses at most 0.01 of P@10 with one probed anchor, and at most "
        "0.002 with three. With one probed anchor it makes at most 1/20 of the comparisons. Means over seeds (`python "
        "-m benchmarks.quality.class_anchors`):",
        "",
        "| bits (seeds) | what | here | to reach | |",
        "|---|---|---|---|---|",
    ]
    widths = {bits: [run for run in study["runs"] if run["bits"] == bits] for bits in (32, 64)}
    for bits, runs in widths.items():
        for text, value, limit, passed in _sentences(runs):
            lines.append(f"| {bits} ({len(runs)}) | {text} | {value:.4f} | {limit} | {_mark(passed)} |")
    lines += [
        "",
        "Ablations, by mAP of codes. *spread*: the sum of both standard deviations. *idle*: the difference is at most "
        "the spread. *near zero*: anchors start as normal numbers with standard deviation 0.1, not as +1 and -1. The "
        "tables above use the loss with its defaults.",
        "",
        "| bits (seeds) | change | mAP without | with it | difference | spread | anchors apart without | with it | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for bits, runs in widths.items():
        lines += [f"| {bits} ({len(runs)}) | {cells} |" for cells in _changes(runs)]
    ours, theirs = (1000 * study["step seconds"][name] for name in ("objective", "class_anchor_margin"))
    return [
        *lines,
        "",
        f"Time of loss and gradient for a batch of 256 rows (64 bits, 150 classes, one thread): {theirs:.2f} ms with "
        f"Class Anchor Margin, {ours:.2f} ms with the objective of fasthash. The ratio is {theirs / ours:.2f} (at most "
        f"2: {_mark(theirs <= 2 * ours)}).",
        "",
    ]


def _sentences(runs: list[dict[str, Any]]) -> Iterator[tuple[str, float, str, bool]]:
    """What is said, the value, what it has to reach, whether it does."""

    def mean(part: str, name: str) -> float:
        return statistics.fmean(run[part][name] for run in runs)

    outputs, codes = mean("whole", "outputs, L2"), mean("whole", "codes")
    for metric, title in (("l2", "L2"), ("cosine", "cosine")):
        limit = mean("CE outputs", metric)
        yield f"mAP of outputs by L2: that of CE's outputs by {title}", outputs, f"{limit:.4f}", outputs >= limit
    yield "mAP of codes: 0.97 of that of outputs", codes, f"{0.97 * outputs:.4f}", codes >= 0.97 * outputs
    apart, changed = mean("no repeller", "mean distance of anchors"), mean("no repeller", "codes")
    most = mean("whole", "mean distance of anchors") / 10
    yield "no repeller: mean distance of anchors below a tenth", apart, f"below {most:.4f}", apart < most
    yield "no repeller: mAP lower by 0.05", changed, f"at most {codes - 0.05:.4f}", changed <= codes - 0.05
    for kind in ("codes", "outputs"):
        part = f"{kind} in two stages"
        for probes, loss in ((1, 0.01), (3, 0.002)):
            found, limit = mean(part, f"{probes} probed"), mean(part, "exhaustive") - loss
            text = f"{kind}, anchors probed: {probes}"
            yield f"{text}: P@10 of all of them - {loss}", found, f"{limit:.4f}", found >= limit
            if probes == 1:
                cost = mean(part, f"{probes} probed, part of the comparisons")
                yield f"{text}: part of the comparisons", cost, "at most 0.05", cost <= 0.05


def _changes(runs: list[dict[str, Any]]) -> Iterator[str]:
    for title, without, changed in CHANGES:
        maps = [[run[name]["codes"] for run in runs] for name in (without, changed)]
        apart = [statistics.fmean(run[name]["mean distance of anchors"] for run in runs) for name in (without, changed)]
        before, after = map(statistics.fmean, maps)
        spread = sum(statistics.stdev(each) if len(each) > 1 else 0.0 for each in maps)
        what = "idle" if abs(after - before) <= spread else "better" if after > before else "worse"
        yield (
            f"{title} | {before:.4f} | {after:.4f} | {after - before:+.4f} | {spread:.4f} | {apart[0]:.2f} | "
            f"{apart[1]:.2f} | {what}"
        )


def _mark(passed: bool) -> str:
    return "pass" if passed else "**fail**"
