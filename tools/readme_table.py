"""Writes the demo's tables into README.md, from benchmarks/results/demo.json.

    fasthash demo --json > benchmarks/results/demo.json      # on a machine that does nothing else
    python tools/readme_table.py

tests/test_readme.py fails where the two differ.
"""

from __future__ import annotations

import json
from pathlib import Path

from fasthash.report import markdown_tables

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- demo: tools/readme_table.py writes what follows -->", "<!-- end of demo -->"


def main() -> None:
    readme = ROOT / "README.md"
    results = json.loads((ROOT / "benchmarks" / "results" / "demo.json").read_text(encoding="utf-8"))
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text(f"{before}{BEGIN}\n\n{markdown_tables(results)}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
