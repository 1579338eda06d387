"""Task f of the harness, several labels for each row: its split, its metrics, its acceptance table."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hasher_cases import blobs, multi_hot

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks" / "quality").is_dir():
    pytest.skip("the benchmarks are not here", allow_module_level=True)
sys.path.append(str(ROOT))

from benchmarks.quality import fits, methods, multilabel_task, results, run, tables, tasks  # noqa: E402
from benchmarks.quality.measure import array_ranking  # noqa: E402
from benchmarks.quality.multilabel_acceptance import multilabel_acceptance  # noqa: E402
from fasthash import metrics  # noqa: E402
from fasthash.datasets import coco_captions  # noqa: E402


def small_task() -> tasks.Task:
    rows = [tasks.Items(X, multi_hot(y)) for X, y in (blobs(300), blobs(120, 1), blobs(60, 2))]
    sides = {"train": (rows[1], rows[0])}, {"train": (rows[2], rows[0])}
    return tasks.Task("f", "blobs", "multilabel", rows[0], *sides, (8, 16))


def test_metrics_are_those_of_the_package() -> None:
    query, database = small_task().test["train"]
    codes = [np.packbits(items.X > 0, axis=1) for items in (query, database)]
    for sides, metric in ((codes, None), ([query.X, database.X], "cosine")):
        found = multilabel_task.measure_multilabel(array_ranking(sides, (query, database), metric))
        labels = query.y, database.y
        assert found["NDCG@100"] == pytest.approx(metrics.ndcg(*sides, *labels, 100, metric=metric))
        assert found["ACG@100"] == pytest.approx(metrics.average_cumulative_gain(*sides, *labels, 100, metric=metric))
        assert found["mAP"] == pytest.approx(metrics.mean_average_precision(*sides, *labels, metric=metric))


def test_runs_are_measured_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {"epochs": 3, "hidden": (16,), "batch_size": 64}
    fit = fits.fit_hasher("cosine", loss="rank_consistency", **quick)
    whole = methods.Method("rank_consistency", "RCDH", "labels", fit, ({}, {"loss.rank": 2.0}), tasks=("f",))
    chosen = (
        *methods._with_ablations(
            whole,
            ("no-rank", "no L_RC", {"loss.rank": 0.0}),
            ("permuted", "labels of other rows", {"permuted": True}),
        ),
        methods.Method("ours", "fasthash", "labels", fits.fit_hasher("l1", **quick), ({},), tasks=("f",)),
    )
    for module in (methods, run, tables):
        monkeypatch.setattr(module, "METHODS", chosen)
    monkeypatch.setattr("benchmarks.quality.multilabel_acceptance.METHODS", chosen)
    monkeypatch.setattr(tables, "TITLES", {m.name: m.title for m in chosen})
    task = small_task()
    run.floors(task, tmp_path)
    assert run.run(task, list(chosen), [8], [0, 1], tmp_path) == 8
    lines = results.read(tmp_path, "f")
    floor = results.find(lines, kind="floors")
    assert floor is not None
    random = floor["metrics"]["random train"]["NDCG@100"]
    scores = {
        name: results.find(lines, kind="run", method=name, seed=0)["metrics"]["codes train"]["NDCG@100"]  # type: ignore[index]
        for name in ("rank_consistency", "rank_consistency-permuted")
    }
    assert scores["rank_consistency"] > scores["rank_consistency-permuted"]
    assert abs(scores["rank_consistency-permuted"] - random) < abs(scores["rank_consistency"] - random)
    tuned = results.find(lines, kind="tuning", method="rank_consistency")
    assert tuned is not None
    assert len(tuned["scores"]) == 2
    text = tables.write_tables(tmp_path, tmp_path).read_text()
    assert "| method | NDCG@100 | ACG@100 | mAP | codes | outputs NDCG@100 | retention |" in text
    assert "| 8 | RCDH, no L_RC |" in text
    assert "falls to the random ranking" in text


def test_acceptance_says_pass_fail_and_idle() -> None:
    def runs(**values: list[float]) -> dict[tuple[str, str, int], list[dict[str, object]]]:
        return {
            ("f", name.replace("_no", "-no").replace("_permuted", "-permuted"), 64): [
                {"metrics": {"codes train": {"NDCG@100": value, "ACG@100": value, "mAP": 1 - value}}} for value in each
            ]
            for name, each in values.items()
        }

    floor = {"metrics": {"random train": {"NDCG@100": 0.2}}}
    found = runs(
        ours=[0.70, 0.71],
        rank_consistency=[0.60, 0.62],
        rank_consistency_no_rank=[0.605, 0.605],
        rank_consistency_permuted=[0.21, 0.22],
        dsrh=[0.5, 0.5],
        bce=[0.605, 0.605],
    )
    found = {(task, name.replace("no_", "no-"), bits): each for (task, name, bits), each in found.items()}
    lines = multilabel_acceptance(found, floor)  # type: ignore[arg-type]
    verdicts = {line.split("|")[2].strip(): line.split("|")[-2].strip() for line in lines if line.startswith("| 64")}
    assert verdicts == {
        "RCDH at least DSRH": "pass",
        "RCDH at least BCE, sign + 0.01": "**fail**",
        "RCDH without L_RC lower by 0.01": "**fail**",
        "RCDH with labels of other rows falls to the random ranking (+ 0.02)": "pass",
        "fasthash, labels: no published loss has a better NDCG@100 beyond the spread (RCDH)": "pass",
        "fasthash, labels: no published loss has a better ACG@100 beyond the spread (RCDH)": "pass",
        "fasthash, labels: no published loss has a better mAP beyond the spread (DSRH)": "**fail**",
        "RCDH, no L_RC": "idle",
        "RCDH, labels of other rows": "needed",
    }


def test_images_are_in_one_part_alone(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captions = coco_captions(shared_data / "coco_captions_val2017")
    numbered = captions._replace(embeddings=np.arange(len(captions.images), dtype=np.float32)[:, None])
    monkeypatch.setattr(multilabel_task, "coco_captions", lambda folder: numbered)
    task = multilabel_task.task_f(shared_data)
    items = task.train, task.validation["train"][0], task.test["train"][0]
    parts = [set(captions.images[each.X[:, 0].astype(int)].tolist()) for each in items]
    assert [len(part) for part in parts] == [700, 142, 300]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    assert task.train.y.shape[1] == 80
    assert sum(len(each.y) for each in items) == 5715
    with np.load(shared_data / "coco_captions_val2017" / "labels80_partial.npz") as arrays:
        labels = dict(zip(arrays["image_id"].tolist(), arrays["multi_hot"], strict=True))
    for each in items:
        for row, own in zip(each.X[::97, 0].astype(int), each.y[::97], strict=True):
            assert (labels[int(captions.images[row])] == own).all()
    with pytest.raises(ValueError, match="task f: no similarity of classes"):
        _ = task.similarity
