"""Task l: its tables, and what fasthash is meant to reach there."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks.quality.graded_task import BYTES, LEARNED_FROM, MODES, K

Runs = dict[tuple[str, str, int], list[dict[str, Any]]]
METRIC = f"nDCG@{K}"
OURS, DEFAULT, UNTRAINED = "graded-ours", "graded-default", "graded-itq-decoded"
MUST, GOAL = BYTES[:5], BYTES[5:7]  # 16 to 64 bytes; to 128
EXPLAINED = (
    "- Columns are bytes of an item. ITQ with scales, the quantisers and *fasthash* (`Hasher.fit(X)`, searched by a "
    "`LinearDecoder`) have a scale for each item, float16, which is 2 of these bytes. Settings with *decoded False* "
    "have no scale: the code fills all bytes. What all items share (means, matrices, codebooks) is not counted",
    "- Quantisers of 1, 2 and 4 bits a dimension take as many principal components as fill the bytes, at most all "
    "384. TurboQuant of 1 bit is RaBitQ of 1 bit. PQ is that of faiss, a byte for each part of a row. "
    "Rotation, sign, and quantisers of all dimensions learn a mean, nothing else",
    "- *ITQ with a decoder* is ITQ that is searched as fasthash is. It is no rival in the goals, because the decoder "
    "is fasthash's",
    "- Settings of fasthash are chosen on validation queries of each task, by float queries, at each size up to 64 "
    "bytes; longer items have the settings of 64. *components*: it learns from this number of principal components. "
    "*epochs 1, lr 0.0001*: it hardly leaves its start, ITQ. The lists below tell what was tried. *fasthash, "
    "defaults* has the default of every setting, and a decoder; one seed",
    "- Goals: the rival is the best method with at most the same number of bytes, with float queries or with codes as "
    "queries, whichever is better. The limit is its mean minus both standard deviations. PubMedQA has five seeds, the "
    "other corpora have three. A method that was run with one seed has no deviation",
)
TITLES = {
    "symmetric": "Codes against codes",
    "asymmetric": "Float queries against codes",
    "top3": "Float queries, the 30 nearest re-ranked by floats (3x)",
    "top10": "Float queries, the 100 nearest re-ranked by floats (10x)",
}


def graded_goals(runs: Runs) -> Iterator[tuple[str, float, float, str]]:
    """What is said, the value, its limit, a note: float queries against codes, of fasthash and of others."""
    for corpus in LEARNED_FROM:
        for count in (*MUST, *GOAL):
            what = f"task l-{corpus}, {count} bytes, {'must' if count in MUST else 'goal'}: {METRIC}"
            yield _against(runs, f"l-{corpus}", count, what, others=True)
        for count in (*MUST, *GOAL):
            what = f"task l-{corpus}-moved, {count} bytes"
            if count in MUST:
                yield _against(runs, f"l-{corpus}-moved", count, f"{what}, must: {METRIC} against ITQ", others=False)
            yield _against(runs, f"l-{corpus}-moved", count, f"{what}, goal: {METRIC}", others=True)


def _against(runs: Runs, task: str, count: int, what: str, others: bool) -> tuple[str, float, float, str]:
    """fasthash of so many bytes against the best rival of at most as many (ITQ, unless others), less both spreads."""
    mine = values(runs, task, OURS, 8 * count)
    rivals = {
        (name, bits): found
        for name, bits in sorted({(m, b) for t, m, b in runs if t == task and "graded" in m})
        if name not in (OURS, DEFAULT, UNTRAINED) and (others or name.startswith("graded-itq")) and bits <= 8 * count
        if (found := best_values(runs, task, name, bits))
    }
    if not mine or not rivals:
        return what, math.nan, math.nan, ""
    best = max(rivals, key=lambda key: statistics.fmean(rivals[key]))
    limit = statistics.fmean(rivals[best]) - _deviation(mine) - _deviation(rivals[best])
    return what, statistics.fmean(mine), limit, f" ({best[0].removeprefix('graded-')} - spread)"


def values(runs: Runs, task: str, method: str, bits: int, mode: str = "asymmetric", name: str = METRIC) -> list[float]:
    return [run["metrics"][f"{mode} corpus"][name] for run in runs.get((task, method, bits), [])]


def best_values(runs: Runs, task: str, method: str, bits: int) -> list[float]:
    """Those of the better of both kinds of queries."""
    both = [values(runs, task, method, bits, mode) for mode in MODES[:2]]
    return max(both, key=lambda each: statistics.fmean(each) if each else -1.0)


def graded_tables(runs: Runs, task: str, floor: dict[str, Any], titles: dict[str, str]) -> list[str]:
    """A markdown table for each kind of search: methods and bytes of an item; and what training is worth."""
    floats = floor["metrics"]["floats corpus"][METRIC]
    methods = [name for name in titles if any((task, name, bits) in runs for bits in (8 * count for count in BYTES))]
    lines = [
        *EXPLAINED,
        f"- {METRIC} of floats, 1,536 bytes: {floats:.4f}. In brackets: bytes of an item, where they are fewer than in "
        "the column. Means over seeds and the standard deviation of one run, where there are several; the best of a "
        "column is bold",
        "",
    ]
    for mode in MODES:
        lines += [f"### {TITLES[mode]}", ""]
        lines += ["| method | " + " | ".join(map(str, BYTES)) + " |", "|---" * (len(BYTES) + 1) + "|"]
        means = {
            (name, count): statistics.fmean(found)
            for name in methods
            for count in BYTES
            if (found := values(runs, task, name, 8 * count, mode))
        }
        top = {count: max((mean for (_, at), mean in means.items() if at == count), default=0.0) for count in BYTES}
        for name in methods:
            cells = [_cell(runs, task, name, count, mode, top[count]) for count in BYTES]
            lines.append(f"| {titles[name]} | " + " | ".join(cells) + " |")
        lines.append("")
    trained = [
        f"{count} bytes {statistics.fmean(mine) - statistics.fmean(plain):+.4f}"
        for count in BYTES
        if (mine := values(runs, task, OURS, 8 * count)) and (plain := _untrained(runs, task, 8 * count))
    ]
    lines += [f"Training, above ITQ that is searched in the same way: {', '.join(trained)}.", ""] if trained else []
    return lines


def _untrained(runs: Runs, task: str, bits: int) -> list[float]:
    """Of ITQ, with a decoder where fasthash has one."""
    decoded = runs[task, OURS, bits][0]["settings"].get("decoded", True)
    return values(runs, task, UNTRAINED if decoded else "graded-itq", bits)


def _cell(runs: Runs, task: str, name: str, count: int, mode: str, top: float) -> str:
    found = values(runs, task, name, 8 * count, mode)
    if not found:
        return ""
    mean = statistics.fmean(found)
    text = f"{mean:.4f}" + (f" ±{_deviation(found):.4f}" if len(found) > 1 else "")
    size = int(values(runs, task, name, 8 * count, mode, "bytes")[0])
    text = f"**{text}**" if mean == top else text
    return text if size == count else f"{text} ({size})"


def _deviation(found: list[float]) -> float:
    return statistics.stdev(found) if len(found) > 1 else 0.0
