"""Writes the speed tables of docs/kl-loss.md, from benchmarks/results/kl-cpu.json.

    python benchmarks/bench_kl.py      # on a machine that does nothing else
    python tools/kl_table.py

tests/test_docs.py fails where the two differ.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from kl_report import docs_table  # noqa: E402

BEGIN, END = "<!-- speed: tools/kl_table.py writes what follows -->", "<!-- end of speed -->"


def main() -> None:
    page = ROOT / "docs" / "kl-loss.md"
    results = json.loads((ROOT / "benchmarks" / "results" / "kl-cpu.json").read_text(encoding="utf-8"))
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{docs_table(results)}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
