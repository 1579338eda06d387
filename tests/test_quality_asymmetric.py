"""DSAH in the harness: on embeddings and on images, its three searches, its table of acceptance."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hasher_cases import blobs

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks" / "quality").is_dir():
    pytest.skip("the benchmarks are not here", allow_module_level=True)
sys.path.append(str(ROOT))  # last: the sources beside it have no compiled extension

from benchmarks.quality import asymmetric, asymmetric_acceptance, fits, methods, run, tables, tasks  # noqa: E402
from fasthash import AsymmetricHasher, metrics  # noqa: E402
from fasthash.train import asymmetric_hasher  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ["asymmetric", *(f"asymmetric-{name}" for name in (*asymmetric_acceptance.TERMS, asymmetric_acceptance.ROWS))]


def task_of(kind: str = "classes") -> tasks.Task:
    parts = [tasks.Items(*blobs(rows, seed)) for seed, rows in enumerate((120, 60, 60))]
    name = "a"
    if kind == "images":
        name = "c-reduced"
        shades = [
            np.random.default_rng(seed).integers(0, 60, (len(each.y), 8, 8, 3)) for seed, each in enumerate(parts)
        ]
        parts = [
            tasks.Items((shade + 30 * each.y[:, None, None, None]).astype(np.uint8), each.y)
            for shade, each in zip(shades, parts, strict=True)
        ]
    train, query, test = parts
    sides = {"train": (query, train)}, {"train": (test, train), "val": (test, query)}
    return tasks.Task(name, "blobs", kind, train, *sides, (8,))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asymmetric_hasher, "STEPS", 8)
    monkeypatch.setattr(asymmetric, "REDUCED_EPOCHS", 4)
    monkeypatch.setattr(run, "TUNING_BITS", 8)


@pytest.mark.usefixtures("quick")
def test_methods_run_and_three_searches_are_measured(tmp_path: Path) -> None:
    task = task_of()
    chosen = [m for m in methods.METHODS if m.name in [*NAMES, "lsh"]]
    assert len(chosen) == len(NAMES) + 1
    assert all({"a", "c-reduced"} <= {*m.tasks} for m in chosen)
    run.floors(task, tmp_path)
    assert run.run(task, chosen, [8], [0], tmp_path) == len(chosen)
    from benchmarks.quality import results

    lines = {line["method"]: line for line in results.read(tmp_path, "a") if line["kind"] == "run"}
    assert [*lines["asymmetric"]["metrics"]] == ["codes train", "free train", "outputs train", "codes val"]
    assert "free train" not in lines["lsh"]["metrics"]
    assert lines["asymmetric-by-row"]["settings"]["prior"] == "row"
    assert lines["asymmetric-no-second"]["settings"]["second"] == 0
    text = tables.write_tables(tmp_path, tmp_path).read_text()
    assert "| DSAH (1) |" in text
    assert "free" not in text.split("## Task a")[1].split("Acceptance")[0]


@pytest.mark.usefixtures("quick")
def test_codes_are_those_of_the_hasher() -> None:
    task = task_of()
    model = fits.fit_free_codes(task, task.train, 8, 3, {"affinity": 0.5})
    hasher = AsymmetricHasher(8, affinity=0.5, seed=3, progress=False).fit(task.train.X, task.train.y)
    query, database = task.test["train"]
    np.testing.assert_array_equal(model.codes(query.X), hasher.encode(query.X))
    np.testing.assert_array_equal(model.free, hasher.codes_)
    found = run.measure(task, model, 8)["free train"]["mAP"]
    wanted = metrics.mean_average_precision(hasher.encode(query.X), hasher.codes_, query.y, database.y)
    assert found == pytest.approx(wanted, abs=1e-5)


@pytest.mark.usefixtures("quick")
def test_images_have_a_network_of_their_own() -> None:
    task = task_of("images")
    model = fits.fit_free_codes(task, task.train, 8, 0, {"lr": 1e-2, "epochs": 1, "second": 0.0})
    assert model.free is not None
    assert model.free.shape == model.codes(task.train.X).shape == (120, 1)
    query, database = task.test["train"]
    assert metrics.mean_average_precision(model.codes(query.X), model.free, query.y, database.y) > 0.3
    assert run.measure(task, model, 8).keys() == {"codes train", "free train", "outputs train", "codes val"}


def runs(*values: float) -> list[dict[str, Any]]:
    sides = {"codes train": 0.0, "codes val": -0.1, "codes held out": -0.1, "free train": 0.05}
    return [{"metrics": {side: {"mAP": value + more} for side, more in sides.items()}} for value in values]


def test_the_table_says_pass_fail_and_idle() -> None:
    found = {
        ("a", "asymmetric", 32): runs(0.90, 0.92),
        ("a", "ce", 32): runs(0.91, 0.91),
        ("c-reduced", "asymmetric", 32): runs(0.20, 0.20),
        ("c-reduced", "ce", 32): runs(0.21, 0.21),
        ("a", "asymmetric-no-quantization", 32): runs(0.01, 0.01),
        ("a", "asymmetric-no-second", 32): runs(0.905, 0.905),
        ("c-reduced", "asymmetric-no-second", 32): runs(0.21, 0.21),
        ("a", "asymmetric-no-affinity", 32): runs(0.90, 0.915),
        ("a", "asymmetric-by-row", 32): runs(0.895, 0.895),
        ("c-reduced", "asymmetric-by-row", 32): runs(0.20, 0.20),
    }
    text = "\n".join(asymmetric_acceptance.asymmetric_acceptance(found))
    assert "| a, 32 | 0.9100 ±0.0141 | 0.8100 ±0.0141 | 0.9600 ±0.0141 |" in text
    assert "| a, 32 bits: mAP less that of CE, sign | +0.0000 | 0 | pass |" in text
    assert "| c-reduced, 32 bits: mAP less that of CE, sign | -0.0100 | 0 | **fail** |" in text
    assert (
        "| L_q gains more than a deviation on at least one set (most: a, 32 bits) | +0.9000 | 0.0141 | pass |" in text
    )
    assert "the second label gains more than a deviation on at least one set (most: a, 32 bits) | +0.0050" in text
    assert (
        "| L_a gains more than a deviation on at least one set (most: a, 32 bits) | +0.0025 | 0.0141 | **fail**" in text
    )
    assert (
        "class structure beats a row's own code on at least one set (most: a, 32 bits) | +0.0150 | 0.01 | pass" in text
    )
    assert "| a, 32 | L_q | 0.9100 | 0.0100 | -0.9000 | 0.0141 | needed |" in text
    assert "| a, 32 | L_a | 0.9100 | 0.9075 | -0.0025 | 0.0141 | idle |" in text
    assert "| c-reduced, 32 | the second label | 0.2000 | 0.2100 | +0.0100 | 0.0000 | helps to leave out |" in text
    assert asymmetric_acceptance.asymmetric_acceptance({}) == []
