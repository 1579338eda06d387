"""The recipe of docs/cluster.md for torchrun: two processes print what one prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cluster.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.mark.skipif(not dist.is_available(), reason="torch was built without torch.distributed")
def test_recipe_with_two_processes_gives_what_one_gives(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", TEXT.split("## Training")[1].split("\n## ")[0], flags=re.S | re.M)
    (recipe,) = blocks
    printed = []
    for name, command in (
        ("one", []),
        ("two", ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "ranks.py").write_text(recipe)
        places = os.pathsep.join(sys.path)
        done = subprocess.run(
            [sys.executable, *command, "ranks.py"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": places, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert (folder / "runs" / "ranks" / "model.safetensors").is_file()
        printed.append(done.stdout)
    assert printed == ["[0, 1, 2, 3, 4] (5, 10)\n"] * 2


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT):
        assert (PAGE.parent / target.partition("#")[0]).exists(), target
