"""The study of Class Anchor Margin: its precision against a loop, its acceptance table, its committed runs."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks" / "quality").is_dir():
    pytest.skip("the benchmarks are not here", allow_module_level=True)
sys.path.append(str(ROOT))

from benchmarks.quality import class_anchors, methods  # noqa: E402
from benchmarks.quality.class_anchors_acceptance import class_anchors_acceptance  # noqa: E402
from fasthash import hamming_topk  # noqa: E402


def run_of(bits: int) -> dict[str, Any]:
    """A run that passes every sentence, and whose repeller is needed."""
    stages = {"exhaustive": 0.9, "1 probed": 0.895, "1 probed, part of the comparisons": 0.02, "3 probed": 0.899}
    learned = {"codes": 0.95, "outputs, L2": 0.96, "mean distance of anchors": 8.0}
    collapsed = {"codes": 0.80, "outputs, L2": 0.81, "mean distance of anchors": 0.5}
    return {
        "bits": bits,
        "whole": learned,
        "no repeller": collapsed,
        "centre loss": collapsed,
        "whole, from near zero": learned,
        "no repeller, from near zero": collapsed,
        "codes in two stages": stages,
        "outputs in two stages": dict(stages),
        "CE outputs": {"cosine": 0.95, "l2": 0.94},
    }


def study_of(runs: list[dict[str, Any]], seconds: float = 0.001) -> dict[str, Any]:
    return {"step seconds": {"objective": 0.002, "class_anchor_margin": seconds}, "runs": copy.deepcopy(runs)}


def marks(study: dict[str, Any]) -> dict[str, str]:
    """What the table of 32 bits says of each sentence."""
    cells = [line.split(" | ") for line in class_anchors_acceptance(study) if line.startswith("| 32 ")]
    return {each[1]: each[-1].removesuffix(" |") for each in cells}


def test_acceptance_says_pass_or_fail_of_each_sentence() -> None:
    runs = [run_of(bits) for bits in (32, 32, 64)]
    passed = marks(study_of(runs))
    assert [mark for mark in passed.values() if mark == "pass"] == ["pass"] * 11
    assert passed["no repeller"] == "worse"
    assert passed["anchors begin near zero"] == "idle"
    for part, name, value, sentences in (
        ("CE outputs", "cosine", 0.99, ("mAP of outputs by L2: that of CE's outputs by cosine",)),
        ("whole", "codes", 0.90, ("mAP of codes: 0.97 of that of outputs",)),
        ("no repeller", "mean distance of anchors", 1.0, ("no repeller: mean distance of anchors below a tenth",)),
        ("no repeller", "codes", 0.93, ("no repeller: mAP lower by 0.05",)),
        ("codes in two stages", "1 probed", 0.88, ("codes, anchors probed: 1: P@10 of all of them - 0.01",)),
        ("outputs in two stages", "3 probed", 0.89, ("outputs, anchors probed: 3: P@10 of all of them - 0.002",)),
        (
            "codes in two stages",
            "1 probed, part of the comparisons",
            0.06,
            ("codes, anchors probed: 1: part of the comparisons",),
        ),
    ):
        study = study_of(runs)
        for run in study["runs"]:
            run[part][name] = value
        changed = marks(study)
        assert [sentence for sentence, mark in changed.items() if mark == "**fail**"] == list(sentences)
    assert "at most 2: **fail**" in class_anchors_acceptance(study_of(runs, 0.005))[-2]


def test_precision_and_cost_of_two_stages() -> None:
    generator = np.random.default_rng(0)
    codes = [generator.integers(0, 256, (rows, 2), dtype=np.uint8) for rows in (5, 40)]
    sides = SimpleNamespace(y=generator.integers(0, 3, 5)), SimpleNamespace(y=generator.integers(0, 3, 40))
    anchors = generator.integers(0, 256, (4, 2), dtype=np.uint8)
    found = class_anchors.two_stages(codes, anchors, sides)
    nearest = hamming_topk(*codes, 10).ids
    wanted = np.mean([[sides[1].y[i] == own for i in row] for own, row in zip(sides[0].y, nearest, strict=True)])
    assert found["exhaustive"] == pytest.approx(wanted)
    sizes = np.bincount(hamming_topk(codes[1], anchors, 1).ids[:, 0], minlength=4)
    compared = 4 + sizes[hamming_topk(codes[0], anchors, 3).ids].sum(1)
    assert found["3 probed, part of the comparisons"] == pytest.approx(compared.mean() / 40)
    missing = np.full((5, 10), -1)
    assert class_anchors.precision(missing, sides) == 0.0


@pytest.mark.skipif(not class_anchors.FILE.exists(), reason="the results of the runs are not here")
def test_the_runs_that_the_document_shows_are_there() -> None:
    study = json.loads(class_anchors.FILE.read_text(encoding="utf-8"))
    assert [(run["bits"], run["seed"]) for run in study["runs"]] == [(b, seed) for b in (32, 64) for seed in range(3)]
    method = next(m for m in methods.METHODS if m.name == "class_anchor_margin")
    assert all(run["settings"] in method.settings for run in study["runs"])
    assert len(marks(study)) == 15
