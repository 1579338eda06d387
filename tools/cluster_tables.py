"""Writes the tables of docs/cluster.md from benchmarks/results/cluster.json.

python tools/cluster_tables.py
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "cluster.md"
sys.path.insert(0, str(ROOT / "benchmarks"))

from cluster_sizes import RESULT, table  # noqa: E402


def speed(measured: dict[str, Any]) -> str:
    """The table of the benchmark."""
    seconds = measured["seconds"]
    rows = [
        ("one index, 2 threads", seconds["one, 100 queries"], seconds["one, 1 query"]),
        ("2 shards, 1 thread each", seconds["shards, 100 queries"], seconds["shards, 1 query"]),
    ]
    lines = ["| | 100 queries | 1 query |", "|---|---:|---:|"]
    lines += [f"| {name} | {hundred:.2f} s | {1e3 * one:.1f} ms |" for name, hundred, one in rows]
    lines.append(f"| difference | {measured['ratio_100']:.2f} times | {measured['more_ms_1']:+.1f} ms |")
    ratio, more = measured["processor_ratio_100"], measured["processor_more_ms_1"]
    lines.append(f"| the same, in processor seconds without Ray | {ratio:.2f} times | {more:+.1f} ms |")
    system = measured["machine"]
    said = (
        f"Medians on {system['processor']}, {system['cores']} cores, load {system['load_before']:.0f} before the run; "
        f"goals {measured['goals']['ratio_100']} times and {measured['goals']['more_ms_1']:+.0f} ms. A call that "
        f"searches nothing takes {measured['call_ms']:.1f} ms, an `add` of 100 codes {measured['add_ms']:.0f} ms."
    )
    if system["load_before"] > system["cores"]:
        said += " Other processes kept the machine busy, so that only the processor seconds say much."
    return "\n".join(lines) + f"\n\n{said}\n"


def filled(text: str, measured: dict[str, Any]) -> str:
    """The page with the tables of what was measured."""
    for name, content in (("speed", speed(measured)), ("sizes", table(measured))):
        begin, end = f"<!-- cluster {name} -->", f"<!-- end of cluster {name} -->"
        text = re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{content}{end}", text, flags=re.S)  # noqa: B023
    return text


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), json.loads(RESULT.read_text())), encoding="utf-8")
