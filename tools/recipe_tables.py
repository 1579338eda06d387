"""Writes the tables of docs/recipes.md from the results of small runs.

python tools/recipe_tables.py [RESULTS.json ...]    copies results.json of runs first
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fasthash.recipes import RECIPES, markdown_table

ROOT = Path(__file__).resolve().parent.parent
PAGE, KEPT = ROOT / "docs" / "recipes.md", ROOT / "benchmarks" / "results" / "recipes"
BEGIN, END = "<!-- recipes: tools/recipe_tables.py writes what follows -->", "<!-- end of recipes -->"


def tables() -> str:
    """What stands between BEGIN and END."""
    parts = []
    for name in RECIPES:
        results = json.loads((KEPT / f"{name}.json").read_text(encoding="utf-8"))
        parts.append(f"### {name} --small\n\n{markdown_table(results)}")
    return "\n\n".join(parts)


def main() -> None:
    for path in sys.argv[1:]:
        text = Path(path).read_text(encoding="utf-8")
        (KEPT / f"{json.loads(text)['recipe']}.json").write_text(text, encoding="utf-8")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables()}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
