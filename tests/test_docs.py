"""docs/kl-loss.md: its examples run, its numbers are the measured ones, its recipe gives what one process gives."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "kl-loss.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.S | re.M)
RECIPE = next(block for block in BLOCKS if "torchrun" in block)


@pytest.mark.parametrize("source", [b for b in BLOCKS if b is not RECIPE], ids=lambda b: b.splitlines()[-1][:40])
def test_examples_run(source: str) -> None:
    exec(compile(source, PAGE.name, "exec"), {"__name__": "page"})


def test_tables_are_the_measured_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from kl_report import docs_table, goals, table

    results = ROOT / "benchmarks" / "results" / "kl-cpu.json"
    measured = json.loads(results.read_text(encoding="utf-8"))
    assert docs_table(measured) in PAGE.read_text(encoding="utf-8"), "run tools/kl_table.py"
    assert table(measured) == results.with_suffix(".md").read_text(encoding="utf-8")
    assert goals(measured) == measured["goals"]


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parent / target.partition("#")[0]).exists(), target


@pytest.mark.skipif(not dist.is_available(), reason="torch was built without torch.distributed")
def test_recipe_with_two_processes_gives_what_one_gives(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(RECIPE)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}

    def run(*command: str, again: bool = True) -> list[float]:
        done = subprocess.run(
            [sys.executable, *command, str(script)],
            cwd=Path(__file__).parent,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
        if "terminate called without an active exception" in done.stderr and again:
            return run(*command, again=False)  # torch's own: Gloo's threads outlive the group on a loaded machine
        assert done.returncode == 0, done.stderr
        return [float(number) for number in done.stdout.split()]

    one = run()
    two = run("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert len(one) == 2
    assert two == pytest.approx(one, rel=1e-4)
