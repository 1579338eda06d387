"""docs/recipes.md: its commands run on tiny data of the same form, and its tables are the measured ones."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fasthash.cli import main
from fasthash.recipes.cifar100_synsets import SYNSETS

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
WNIDS = list(SYNSETS.values())


def write_nouns(path: Path) -> None:
    """A noun file as a table: a root, groups of three, and the classes of CIFAR-100."""
    lines = ["wnid\thypernyms\tinstance_hypernyms", "n00000001\t\t"]
    lines += [f"n000001{group:02}\tn00000001\t" for group in range(34)]
    lines += [f"{wnid}\tn000001{number // 3:02}\t" for number, wnid in enumerate(WNIDS)]
    path.write_text("\n".join(lines) + "\n")


def write_cifar(folder: Path, rng: np.random.Generator) -> None:
    folder.mkdir()
    rgb = rng.integers(0, 255, (300, 32, 32, 3), dtype=np.uint8)
    np.savez(folder / "images.npz", rgb=rgb, fine=np.arange(300) % 100, split=np.repeat(["train", "test"], [200, 100]))


def write_archive(folder: Path, classes: int, rng: np.random.Generator) -> None:
    folder.mkdir()
    for part, each in (("train", 6), ("query", 2)):
        files = []
        for _ in range(classes * each):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(file, "JPEG")
            files.append(np.frombuffer(file.getvalue(), np.uint8))
        offset = np.cumsum([0, *map(len, files)])
        label = np.tile(np.arange(classes), each)
        np.savez(folder / f"dev_{part}.npz", jpeg=np.concatenate(files), offset=offset, label=label)
    lines = ["label\twnid", *(f"{number}\t{wnid}" for number, wnid in enumerate(WNIDS[:classes]))]
    (folder / "classes.tsv").write_text("\n".join(lines) + "\n")


def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    write_nouns(tmp_path / "data.noun")
    write_cifar(tmp_path / "cifar100_fragment", rng)
    write_archive(tmp_path / "tiny_imagenet_32", 10, rng)
    (tmp_path / "conceptual_captions_val").mkdir()
    words = ["dog", "cat", "car", "tree", "house", "street"]
    lines = [f"a {' and a '.join(rng.choice(words, 3))}\thttp://127.0.0.1/{row}.jpg" for row in range(60)]
    (tmp_path / "conceptual_captions_val" / "captions.tsv").write_text("\n".join(lines) + "\n")
    commands = re.findall(r"^fasthash recipe .*", PAGE, flags=re.M)  # an indented one is a full run
    assert [shlex.split(line)[2] for line in commands] == ["cifar100", "imagenet", "conceptual-captions"]
    for line in commands:
        assert main([*shlex.split(line)[1:], "--bits", "16", "--epochs", "1"]) == 0, capsys.readouterr().err
        assert "No published number is claimed." in capsys.readouterr().out


def test_tables_are_the_measured_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from recipe_tables import BEGIN, END, tables

    between = PAGE.partition(BEGIN)[2].partition(END)[0].strip()
    assert between == tables(), "run tools/recipe_tables.py"


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", PAGE):
        assert (ROOT / "docs" / target.partition("#")[0]).exists(), target
