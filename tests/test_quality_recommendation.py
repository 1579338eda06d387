"""Task h of the harness: its split, its metrics over ties, its methods, its table of acceptance."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks" / "quality").is_dir():
    pytest.skip("the benchmarks are not here", allow_module_level=True)
sys.path.append(str(ROOT))  # last: the sources beside it have no compiled extension

from benchmarks.quality import methods, recommendation, recommenders, results, run, tables, tasks  # noqa: E402
from benchmarks.quality.recommendation_acceptance import recommendation_acceptance  # noqa: E402
from fasthash import GraphHasher  # noqa: E402

USERS, ITEMS = 24, 40


def small_task() -> tasks.Task:
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(USERS), 15)
    items = 2 * rng.integers(0, ITEMS // 2, len(users)) + users % 2
    edges = np.unique(np.column_stack([users, items]), axis=0)
    parts = recommendation.split(edges[:, 0], edges[:, 1], rng.permutation(len(edges)))
    rows = {name: tasks.Items(edges[parts == name], edges[parts == name, 0]) for name in np.unique(parts)}
    sides = ({"films": (rows[name], rows["train"])} for name in ("validation", "test"))
    return tasks.Task("h", "two groups", "edges", rows["train"], *sides, (32,))


def test_the_last_in_time_are_the_test() -> None:
    users = np.array([0] * 20 + [1] * 9)
    times = np.concatenate([np.arange(20)[::-1], np.arange(9)])
    parts = recommendation.split(users, np.arange(29), times)
    assert parts[:20].tolist() == ["test"] * 4 + ["validation"] * 2 + ["train"] * 14
    assert set(parts[20:]) == {"train"}  # fewer than 10


def test_metrics_are_averages_over_shuffled_ties() -> None:
    rng = np.random.default_rng(0)
    distances = rng.integers(0, 5, (6, 120)).astype(np.float64)
    wanted, known = rng.random((6, 120)) < 0.1, rng.random((6, 120)) < 0.2
    wanted &= ~known
    wanted[5] = False  # who wants nothing does not count
    found = recommendation.expected_recall(distances, wanted, known)
    recalls, gains = [], []
    for _ in range(400):
        for user in range(5):
            left = np.flatnonzero(~known[user])
            order = left[np.lexsort((rng.random(len(left)), distances[user, left]))]
            hits = wanted[user, order[:50]]
            size = int(wanted[user].sum())
            recalls.append(hits.sum() / size)
            gains.append((hits / np.log2(np.arange(2, 52))).sum() / (1 / np.log2(np.arange(2, size + 2))).sum())
    assert found["R@50"] == pytest.approx(np.mean(recalls), abs=0.01)
    assert found["nDCG@50"] == pytest.approx(np.mean(gains), abs=0.01)
    first = np.where(wanted, 0.0, 1.0)
    assert recommendation.expected_recall(first, wanted, known) == {"R@50": 1.0, "nDCG@50": 1.0}


def test_films_of_training_are_never_found() -> None:
    task = small_task()
    wanted, known = recommendation.asked(task, "test")
    assert not (wanted & known).any()
    assert known.sum() == len(task.train.y) + len(task.validation["films"][0].y)
    validation = recommendation.asked(task, "validation")
    assert validation[1].sum() == len(task.train.y)
    sure = recommendation.Recommender(np.eye(USERS, dtype=np.float32), 2.0 * known.T.astype(np.float32) - 1.0)
    found = recommendation.measure_edges(task, sure, "test")["outputs films"]
    nothing = np.zeros(wanted.shape)
    assert found == pytest.approx(recommendation.expected_recall(nothing, wanted, known))


def test_reranking_orders_the_nearest_by_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommendation, "RERANKED", 20)
    task, rng = small_task(), np.random.default_rng(1)
    _, known = recommendation.asked(task, "validation")
    hasher = GraphHasher(16, epochs=2, progress=False).fit(task.train.X, shape=known.shape)
    outputs = hasher.transform()
    model = recommendation.Recommender(2 * outputs.users - 1, 2 * outputs.items - 1)
    ranked = np.where(known, np.inf, model.reranked(known)).argsort(axis=1, kind="stable")[:, :10]
    everyone = rng.permutation(USERS)
    np.testing.assert_array_equal(hasher.recommend(everyone, 10, rescore=2).ids, ranked[everyone])


def test_the_methods_run_and_the_table_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = small_task()
    quick = {"epochs": 3, "batch_size": 64}
    monkeypatch.setattr(recommenders, "GraphHasher", lambda bits=32, **more: GraphHasher(bits, **{**more, **quick}))
    own = [m for m in methods.METHODS if "h" in m.tasks and m.name != "mf-ours"]
    assert {m.name for m in own} >= {"graph", "graph-codes", "graph-continuous", "graph-no-graph", "mf-sign", "mf-itq"}
    run.floors(task, tmp_path)
    assert run.run(task, own, [32], [0], tmp_path) == len(own)
    lines = results.read(tmp_path, "h")
    for line in (line for line in lines if line["kind"] == "run"):
        sides = {"outputs films"} | (set() if line["method"] == "mf" else {"codes films", "reranked films"})
        assert set(line["metrics"]) == sides
    tuned = {line["method"]: line["scores"] for line in lines if line["kind"] == "tuning"}
    assert all(len(scores) == methods.TRIED for scores in tuned.values())
    text = tables.write_tables(tmp_path, tmp_path).read_text()
    assert "*most popular*" in text
    assert "re-ranked by outputs, database: films" in text
    assert text.count("| 32 | re-ranked: ") == 2
    assert "nan" not in text


@pytest.mark.parametrize(("codes", "passed"), [(0.20, True), (0.10, False)])
def test_acceptance(codes: float, passed: bool) -> None:
    values = {
        "graph": (codes, codes + 0.1, codes + 0.1),
        "graph-codes": (0.15, 0.15, 0.15),
        "graph-continuous": (0.1, 0.25, 0.30),  # codes, re-ranked, outputs
        "mf-sign": (0.15, 0.2, 0.2),
        "mf-itq": (0.15, 0.2, 0.2),
    }
    runs: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for name, sides in values.items():
        named = zip(("codes films", "reranked films", "outputs films"), sides, strict=True)
        runs["h", name, 32] = [{"metrics": {side: {"R@50": value} for side, value in named}}] * 3
    lines = recommendation_acceptance(runs, {"metrics": {"most popular films": {"R@50": 0.22}}})
    sentences = [line for line in lines if line.startswith("| 32 | codes: ") or line.startswith("| 32 | re-ranked: ")]
    assert len(sentences) == 5
    assert all(line.endswith("| pass |") == passed for line in sentences)
    ablations = [line for line in lines if "outputs alone in training" in line]
    assert len(ablations) == 2
    assert ablations[0].endswith("| needed |" if passed else "| idle |")


def test_the_task_is_that_of_the_download(shared_data: Path) -> None:
    task = recommendation.task_h(shared_data)
    assert (len(task.train.y), len(task.validation["films"][0].y), len(task.test["films"][0].y)) == (
        34_063,
        4_846,
        9_671,
    )
    json.dumps(task.notes)
