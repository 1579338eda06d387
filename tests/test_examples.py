"""The scripts in examples/ run, and print what they promise. ELSEWHERE names those that have a test of their own."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

from fasthash import Hierarchy

pytestmark = pytest.mark.usefixtures("one_thread")
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
ELSEWHERE = {"cross_modal", "onnx_server", "recommend", "service"}  # have tests of their own


def run(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the script prints, in this process: importing torch once more takes longer than most of them."""
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out


def numbers(pattern: str, text: str) -> list[float]:
    return [float(number) for number in re.findall(pattern, text)]


def test_there_are_at_most_twelve_and_each_has_a_test() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert len(names) <= 12
    mine = Path(__file__).read_text(encoding="utf-8")
    assert {name for name in names if f'"{name}' not in mine} == set()


def test_train_backbone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (right, chance) = numbers(r"(\d+)%", run("train_backbone", monkeypatch, capsys))
    assert right > 80 > chance


def test_captions(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    learned, plain = numbers(r"codes .* (-?[\d.]+)\n", run("captions", monkeypatch, capsys))
    assert learned > plain + 0.3


def test_faiss_codes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("faiss", reason="needs faiss: pip install faiss-cpu")
    assert re.findall(r": (True|False)", run("faiss_codes", monkeypatch, capsys)) == ["True"] * 3


def test_threads(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "from 200,000 to 202,500 codes" in run("threads", monkeypatch, capsys)


def test_duplicates(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = numbers(r"(\d+)% are found", run("duplicates", monkeypatch, capsys))
    assert found > 85


def test_wordnet_hierarchy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    learned, plain = numbers(r"(?:with WordNet|without) +([\d.]+)", run("wordnet_hierarchy", monkeypatch, capsys))
    assert learned > plain + 0.02


def test_wordnet_piece_is_of_wordnet() -> None:
    path = EXAMPLES.parent.parent / "shared" / "data" / "wordnet30" / "wn30_nouns.tsv.gz"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    script = runpy.run_path(str(EXAMPLES / "wordnet_hierarchy.py"))
    whole = Hierarchy.from_wordnet(path, synsets=script["CLASSES"])
    for wnid, _, above in script["PIECE"]:
        assert not above or above in whole.ancestors(wnid), (wnid, above)


def test_billion_codes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "every planted neighbour was found" in run("billion_codes", monkeypatch, capsys, "--n", "2e5")


@pytest.mark.skipif(not dist.is_available(), reason="torch was built without torch.distributed")
def test_several_processes(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    script = [sys.executable, str(EXAMPLES / "several_processes.py")]
    done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    (right,) = numbers(r"2 processes, 1,500 codes each: (\d+)%", done.stdout)
    assert right > 80
