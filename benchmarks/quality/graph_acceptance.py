"""What iterative affinity is meant to show on the tasks k, and whether the runs do."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from benchmarks.quality.methods import METHODS

Runs = dict[tuple[str, str, int], list[dict[str, Any]]]
Own = dict[tuple[str, int], list[dict[str, Any]]]  # of one task, by method and bits
MORE = {"k": 0.10, "k-clinc150": 0.03}  # mAP of codes over the seeds alone
SIDE = "codes unlabelled"


def graph_acceptance(runs: Runs, task: str) -> list[str]:
    """Two markdown tables of a task: the acceptance sentences with pass or fail, and what each ablation costs."""
    own = {(name, bits): each for (where, name, bits), each in runs.items() if where == task}
    widths = sorted({bits for name, bits in own if name == "graph-refined"})
    if not widths:
        return []
    lines = [
        "Acceptance of iterative affinity, means over seeds. Accuracy is that of the test nodes (Cora) or of the "
        "rows without a label (clinc150). f is the classifier after the last round. Mined rows do not include the "
        "seeds. The energy cannot rise from round to round: a round that would raise it is not taken and ends the "
        "refinement. On clinc150 the only goal is the mAP of codes above that of the seeds. The other lines are "
        "goals for Cora:",
        "",
        "| bits | what | here | to reach | |",
        "|---|---|---|---|---|",
    ]
    for bits in widths:
        for text, value, limit, passed in _sentences(own, bits, task):
            lines.append(f"| {bits} | {text} | {value:.4f} | {limit} | {'pass' if passed else '**fail**'} |")
    lines += [
        "",
        "Ablations, by accuracy of labels and by mAP of codes. *idle*: the difference is at most the spread, the sum "
        "of both standard deviations.",
        "",
        "| bits | method | by | whole | changed | difference | spread | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for bits in widths:
        for method in METHODS:
            if method.base == "graph-refined" and (method.name, bits) in own:
                for what, values in (("accuracy", _accuracy), ("mAP", _scores)):
                    whole, changed = (values(own, name, bits) for name in (method.base, method.name))
                    if len(whole) != len(changed):
                        continue  # not all of its seeds are there
                    difference = statistics.fmean(changed) - statistics.fmean(whole)
                    spread = statistics.stdev(whole) + statistics.stdev(changed) if len(whole) > 1 < len(changed) else 0
                    verdict = (
                        "idle" if abs(difference) <= spread else "helps to leave out" if difference > 0 else "needed"
                    )
                    lines.append(
                        f"| {bits} | {method.title} | {what} | {statistics.fmean(whole):.4f} | "
                        f"{statistics.fmean(changed):.4f} | {difference:+.4f} | {spread:.4f} | "
                        f"{verdict} |"
                    )
    return [*lines, ""]


def _sentences(runs: Own, bits: int, task: str) -> Iterator[tuple[str, float, str, bool]]:
    """What is said, the value, what it has to reach, whether it does."""
    found = [run["reached"] for run in runs["graph-refined", bits]]
    f = statistics.fmean(each["accuracy of f"] for each in found)
    if task == "k":
        yield "accuracy of f at least 0.72", f, "0.7200", f >= 0.72
    if ("graph-propagated", bits) in runs:
        limit = statistics.fmean(_accuracy(runs, "graph-propagated", bits)) + 0.02
        yield "accuracy of f above label propagation + 0.02", f, f"{limit:.4f}", f > limit
    energies = [each["energy"] for each in found]
    highest = max((b - a for energy in energies for a, b in pairwise(energy)), default=0.0)
    rounds = statistics.fmean(map(len, energies))
    text = f"largest rise of J from a round to the next ({rounds:.1f} rounds taken of 4)"
    yield text, highest, "at most 0", highest <= 0
    mined, every = (statistics.fmean(each[f"precision {which}"] for each in found) for which in ("mined", "all"))
    yield "precision of mined nodes at least 0.9", mined, "0.9000", mined >= 0.9
    yield "precision of mined nodes above that of all nodes", mined, f"{every:.4f}", mined > every
    here = statistics.fmean(_scores(runs, "graph-refined", bits))
    for rival, more in (("graph-seeds", MORE[task]), ("graph-propagated", 0.0)):
        if (rival, bits) in runs:
            title = next(m.title for m in METHODS if m.name == rival)
            limit = statistics.fmean(_scores(runs, rival, bits)) + more
            text = f"mAP of codes at least that of {title}{f' + {more:.2f}' if more else ' (of this package)'}"
            yield text, here, f"{limit:.4f}", here >= limit


def _scores(runs: Own, method: str, bits: int) -> list[float]:
    return [run["metrics"][SIDE]["mAP"] for run in runs[method, bits]]


def _accuracy(runs: Own, method: str, bits: int) -> list[float]:
    return [run["reached"]["accuracy"] for run in runs[method, bits]]
