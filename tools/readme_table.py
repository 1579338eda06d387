"""Writes the demo's tables into README.md and docs/demo.md, from benchmarks/results/demo.json.

    fasthash demo --ablations --json > benchmarks/results/demo.json      # on a machine that does nothing else
    python tools/readme_table.py

tests/test_readme.py fails where they differ.
"""

from __future__ import annotations

import json
from pathlib import Path

from fasthash.report import markdown_tables, short_table

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- demo: tools/readme_table.py writes what follows -->", "<!-- end of demo -->"
PAGES = {"README.md": short_table, "docs/demo.md": markdown_tables}


def main() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "demo.json").read_text(encoding="utf-8"))
    for page, table in PAGES.items():
        path = ROOT / page
        before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        path.write_text(f"{before}{BEGIN}\n\n{table(results)}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
