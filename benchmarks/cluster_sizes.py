"""What 1e10, 1e11 and 1e12 codes need in machines, memory and time: arithmetic from what one machine did.

    python benchmarks/cluster_sizes.py            prints the table of docs/cluster.md from results/cluster.json

A code of 64 bits with an id from a range takes 8 bytes. A machine here has 256 GiB, three quarters of them for codes,
and 32 cores. Time is the processor seconds of one core for its part of the codes, divided by the cores: that cores and
machines scale without loss is assumed, not measured. The network carries 12 bytes a result.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

RESULT = Path(__file__).resolve().parent / "results" / "cluster.json"
BYTES, K, QUERIES = 8, 10, 100
MEMORY, PART, CORES = 256 << 30, 0.75, 32


def shown(seconds: float) -> str:
    return (
        f"{1e3 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    )


def row(codes: float, measured: dict[str, Any], machines: int) -> str:
    own = codes / machines  # of one machine
    one, hundred = (own * measured["processor_seconds"][name] / measured["n"] / CORES for name in ("1", "100"))
    traffic = QUERIES * K * 12 * machines
    cells = [
        f"1e{round(math.log10(codes))}",
        f"{codes * BYTES / 2**30:,.0f} GiB",
        str(machines),
        f"{own * BYTES / 2**30:,.0f} GiB",
        shown(one),
        shown(hundred),
        f"{traffic / 1000:,.0f} kB",
    ]
    return f"| {' | '.join(cells)} |"


def table(measured: dict[str, Any]) -> str:
    head = ["codes", "all", "machines", "a machine holds", "1 query", "100 queries", "traffic of 100"]
    lines = [f"| {' | '.join(head)} |", "|" + "---:|" * len(head)]
    for codes in (1e10, 1e11, 1e12):
        lines.append(row(codes, measured, math.ceil(codes * BYTES / (MEMORY * PART))))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(json.loads(RESULT.read_text())), end="")
