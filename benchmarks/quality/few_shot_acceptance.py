"""What SuSana Distancia's losses are meant to show on tasks j, and whether the runs do."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks.quality.methods import METHODS

Runs = dict[tuple[str, str, int], list[dict[str, Any]]]
BITS = 64
TITLES = {method.name: method.title for method in METHODS}
SUM, PROTONET, OURS = "few-sum", "few-prototypical", "few-ours"
PUBLISHED = (PROTONET, "few-triplet", "few-icnn", "few-both", SUM)
ABLATIONS = {  # what is whole, and what is left of it without one term
    SUM: {"ProtoNet": "few-both", "prototype triplet": "few-sum-no-triplet", "ICNN": "few-sum-no-icnn"},
    "few-both": {"prototype triplet": "few-icnn", "ICNN": "few-triplet"},
}
HEAD = """## Few-shot: acceptance

Acceptance of SuSana Distancia, means over seeds:

- Each loss trains: prototype triplet alone, ICNN alone, and the sums. The ICNN score of test episodes is at least 0.05
  above that of the untrained encoder.
- ProtoNet + prototype triplet + ICNN loses at most 0.3 points of accuracy against ProtoNet in every task.
- In at least one of the four tasks it is at least 0.5 points above ProtoNet, and by more than 2 standard errors.
- fasthash: no published loss is better by more than the spread, the sum of both standard deviations.

Values are those of real-valued outputs, which the losses use, unless a line names codes. The standard error of a
difference has two parts: the seeds and the test episodes. It treats the episodes of the two methods as different.

| task | what | here | to reach | |
|---|---|---|---|---|"""


def few_shot_acceptance(runs: Runs) -> list[str]:
    """Two markdown tables: the acceptance sentences with pass or fail, and what each ablation costs."""
    tasks = [task for task in dict.fromkeys(task for task, *_ in runs) if (task, SUM, BITS) in runs]
    if not tasks:
        return []
    lines = [HEAD]
    for task in tasks:
        for text, value, limit in _sentences(runs, task):
            lines.append(f"| {task} | {text} | {value:.4f} | {limit:.4f} | {_passed(value, limit)} |")
    above = sum(_mean(runs, task, SUM) >= _above(runs, task) for task in tasks)
    text = f"{TITLES[SUM]} is above ProtoNet: number of tasks, of {len(tasks)}"
    lines.append(f"| all | {text} | {above} | 1 | {_passed(above, 1)} |")
    lines += [
        "",
        "Ablations, by accuracy of outputs. *idle*: the difference is within 2 standard errors.",
        "",
        "| task | method | without | whole | changed | difference | 2 standard errors | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task in tasks:
        for whole, terms in ABLATIONS.items():
            for term, changed in terms.items():
                difference, error, clear = _difference(runs, task, changed, whole)
                what = ("helps to leave out" if difference > 0 else "needed") if clear else "idle"
                means = f"{_mean(runs, task, whole):.4f} | {_mean(runs, task, changed):.4f}"
                lines.append(
                    f"| {task} | {TITLES[whole]} | {term} | {means} | {difference:+.4f} | {error:.4f} | {what} |"
                )
    return [*lines, ""]


def _sentences(runs: Runs, task: str) -> Iterator[tuple[str, float, float]]:
    """What is said, the value, what it has to reach."""
    least = _mean(runs, task, "few-untrained", metric="ICNN") + 0.05
    for name in PUBLISHED[1:]:
        value = _mean(runs, task, name, metric="ICNN")
        yield f"{TITLES[name]}: ICNN score of test episodes, untrained + 0.05", value, least
    value, least = _mean(runs, task, SUM), _mean(runs, task, PROTONET) - 0.003
    yield f"{TITLES[SUM]}: accuracy, ProtoNet - 0.003", value, least
    least = _above(runs, task)
    yield f"{TITLES[SUM]}: accuracy, above ProtoNet (in one task or more)", value, least
    for side in ("outputs", "codes"):
        best = max(PUBLISHED, key=lambda name: _mean(runs, task, name, side))
        spread = sum(_deviation(runs, task, name, side) for name in (best, OURS))
        value, least = _mean(runs, task, OURS, side), _mean(runs, task, best, side) - spread
        yield f"{TITLES[OURS]}: accuracy of {side}, {TITLES[best]} less the spread", value, least


def _passed(value: float, limit: float) -> str:
    return "pass" if value >= limit else "**fail**"


def _above(runs: Runs, task: str) -> float:
    """The accuracy that is above ProtoNet's: by 0.005, and by 2 standard errors."""
    return _mean(runs, task, PROTONET) + max(0.005, _difference(runs, task, SUM, PROTONET)[1])


def _values(runs: Runs, task: str, method: str, side: str = "outputs", metric: str = "accuracy") -> list[float]:
    return [float(run["metrics"][f"{side} episodes"][metric]) for run in runs[task, method, BITS]]


def _mean(runs: Runs, task: str, method: str, side: str = "outputs", metric: str = "accuracy") -> float:
    return statistics.fmean(_values(runs, task, method, side, metric))


def _deviation(runs: Runs, task: str, method: str, side: str = "outputs") -> float:
    values = _values(runs, task, method, side)
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _difference(runs: Runs, task: str, method: str, other: str) -> tuple[float, float, bool]:
    """Accuracy less that of another method, two standard errors of this, and whether it is beyond them."""
    variance = 0.0
    for name in (method, other):
        values = _values(runs, task, name)
        variance += _deviation(runs, task, name) ** 2 / len(values)
        variance += (statistics.fmean(_values(runs, task, name, metric="interval")) / 1.96) ** 2
    difference = _mean(runs, task, method) - _mean(runs, task, other)
    error = 2 * math.sqrt(variance)
    return difference, error, abs(difference) > error
