"""docs/cluster.md: its examples run, its recipes give what one index gives, its tables are the measured ones."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasthash import HammingIndex

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "cluster.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.S | re.M)


def block(word: str) -> str:
    (found,) = [own for own in BLOCKS if word in own]
    return found


def test_the_first_section_is_about_security() -> None:
    headings = re.findall(r"^## (.*)$", TEXT, flags=re.M)
    assert "ports" in headings[0]
    assert {"Encoding", "Training"} <= set(headings)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT):
        assert (PAGE.parent / target.partition("#")[0]).exists(), target


def test_tables_are_the_measured_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from cluster_tables import filled

    measured = json.loads((ROOT / "benchmarks" / "results" / "cluster.json").read_text(encoding="utf-8"))
    assert filled(TEXT, measured) == TEXT, "run tools/cluster_tables.py"


def test_examples_run(tmp_path: Path) -> None:
    """On the laptop, then on several nodes, each in a process of its own."""
    pytest.importorskip("ray", reason="needs ray: pip install 'fasthash[ray]'")
    laptop, nodes = block('ray.init("local"'), block("Cluster(")
    imports = "import numpy as np\nimport ray\nimport fasthash\nfrom fasthash.cluster import ShardedIndex\n"
    codes = next(line for line in laptop.splitlines() if line.startswith("codes ="))
    end = "ray.shutdown()\n"
    for source in (laptop + end, f"{imports}{codes}\n{nodes}shards.close()\n{end}cluster.shutdown()\n"):
        subprocess.run([sys.executable, "-c", source], cwd=tmp_path, check=True, timeout=300)


@pytest.fixture
def case(tmp_path: Path) -> tuple[list[str], Any, Any]:
    one = HammingIndex(24)
    one.add(np.random.default_rng(0).integers(0, 4, (500, 3), np.uint8))
    queries = np.zeros((4, 3), np.uint8)
    folders = [str(path) for path in one.split(tmp_path, 3, progress=False)]
    return folders, queries, one.search(queries, 30)


def assert_equal(found: Any, expected: Any) -> None:
    np.testing.assert_array_equal(found[0], expected.distances)
    np.testing.assert_array_equal(found[1], expected.ids)


def test_the_recipe_for_dask(case: Any) -> None:
    pytest.importorskip("dask", reason="needs dask: pip install dask")
    folders, queries, expected = case
    namespace: dict[str, Any] = {}
    exec(compile(block("import dask"), PAGE.name, "exec"), namespace)
    assert_equal(namespace["search"](folders, queries, 30), expected)


def test_the_recipe_for_spark(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pyspark = pytest.importorskip("pyspark.sql", reason="needs pyspark: pip install pyspark, and java")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    folders, queries, expected = case
    namespace: dict[str, Any] = {}
    exec(compile(block("pyspark"), PAGE.name, "exec"), namespace)
    spark = pyspark.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        assert_equal(namespace["search"](spark, folders, queries, 30), expected)
    finally:
        spark.stop()
