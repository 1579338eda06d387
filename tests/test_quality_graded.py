"""Task l of the harness: its metric over ties, its searches, its tables, goals and picture."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks" / "quality").is_dir():
    pytest.skip("the benchmarks are not here", allow_module_level=True)
sys.path.append(str(ROOT))  # last: the sources beside it have no compiled extension

from benchmarks.quality import (  # noqa: E402
    graded_acceptance,
    graded_methods,
    graded_plot,
    graded_task,
    graded_texts,
    methods,
    results,
    run,
    tables,
    tasks,
)
from fasthash import Hasher, LinearDecoder, asymmetric_topk, baselines, metrics  # noqa: E402

WIDTHS = (128, 192)


def small_task(name: str = "l-captions", moved: bool = False) -> tasks.Task:
    """Groups of five rows about 60 centres, in 48 dimensions; moved: methods see other rows."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, 48))
    group = np.repeat(np.arange(60), 5)
    rows = graded_texts.unit(centres[group] + 0.4 * rng.normal(size=(300, 48)))
    y = np.column_stack([group, group // 6])
    items = tasks.Items(rows, y)
    asked = [
        tasks.Items(graded_texts.unit(rows[part] + 0.05 * rng.normal(size=(30, 48))), y[part])
        for part in (rng.permutation(300)[:30], rng.permutation(300)[:30])
    ]
    learned = tasks.Items(graded_texts.unit(rng.normal(size=(280, 48)) + 0.3), y[:280]) if moved else items
    sides = ({"corpus": (queries, items)} for queries in asked)
    return tasks.Task(name, "groups", "graded", learned, *sides, WIDTHS)


def small_method(method: methods.Method) -> methods.Method:
    quick: tuple[dict[str, Any], ...] = ({"epochs": 1},) if method.name == "graded-ours" else ({},)
    return replace(method, settings=quick, elsewhere={})


def test_ndcg_is_that_of_the_package_over_ties() -> None:
    task = small_task()
    queries, corpus = task.test["corpus"]
    gain = graded_task.gains(queries, corpus)
    qrels = {q: {n: int(value) for n, value in enumerate(row) if value} for q, row in enumerate(gain.tolist())}
    for bits in (3, 8, 40):  # nearly all tied, many, few
        codes = baselines.lsh(corpus.X, bits)
        Q, X = codes.encode(queries.X), codes.encode(corpus.X)
        names: Any = (range(len(Q)), range(len(X)), qrels)
        wanted = metrics.exhaustive_retrieval(Q, X, *names, k=10)["nDCG@10"]
        scores = graded_methods._by_hamming(codes.encode, X)(queries.X)
        assert graded_task.expected_ndcg(scores, gain) == pytest.approx(wanted, abs=1e-6)
    wanted = metrics.exhaustive_retrieval(queries.X, corpus.X, *names, k=10, metric="l2")["nDCG@10"]
    assert graded_task.graded_floors(task)["floats corpus"]["nDCG@10"] == pytest.approx(wanted, abs=1e-6)


def test_re_ranking_orders_the_nearest_by_floats_and_no_others() -> None:
    rng = np.random.default_rng(0)
    scores, floats = rng.normal(size=(4, 50)).astype(np.float32), torch.from_numpy(rng.normal(size=(4, 50)))
    found = graded_task.reranked(scores, floats, 20)
    for row in range(4):
        near = np.argsort(-scores[row])[:20]
        assert set(found[row].topk(20).indices.tolist()) == set(near.tolist())
        assert found[row].argmax() == near[floats[row][near].argmax()]


@pytest.mark.parametrize("scale", [None, "dot"])
def test_float_queries_are_asymmetric_topk(scale: str | None) -> None:
    task = small_task()
    queries, corpus = task.test["corpus"]
    codes = replace(baselines.itq(corpus.X, 32), mean=torch.from_numpy(corpus.X.mean(0)))
    packed = codes.encode(corpus.X)
    if scale is None:
        found = asymmetric_topk(codes.transform(queries.X), packed, 5, metric="dot")
    else:
        codes = codes.in_unit_of(torch.from_numpy(corpus.X))
        given = codes.queries(queries.X, metric="dot")
        found = asymmetric_topk(given, packed, 5, code_scale=codes.scales(corpus.X, packed), metric="dot")
    scores = graded_methods._placed(codes, scale)(corpus.X).asymmetric(queries.X)
    np.testing.assert_allclose(-np.sort(-scores, axis=1)[:, :5], -found.distances, rtol=1e-4, atol=1e-4)


def test_bytes_of_an_item_are_those_of_its_name() -> None:
    X = small_task().train.X
    for learn, width, size in (
        (graded_methods.itq_decoded, 48, 6),
        (graded_methods.grid(baselines.rabitq, 1), 64, 8),  # 48 bits and a scale
        (graded_methods.grid(baselines.osq, 2, seeded=False), 64, 8),  # of the first 24 components
        (graded_methods.grid(baselines.turboquant, 4), 256, 26),  # all dimensions: not filled
    ):
        assert learn(X, width, 0, {})(X).bytes == size


@pytest.mark.filterwarnings("ignore")
def test_codes_of_fasthash_with_and_without_a_decoder() -> None:
    task = small_task()
    X, Q = task.train.X, task.test["corpus"][0].X
    own = Hasher(48, seed=0, epochs=1, progress=False).fit(X)
    found = asymmetric_topk(own.queries(Q, metric="cosine"), own.encode(X), 5, metric="dot")
    codes = own.encode(X)
    decoder = LinearDecoder.fit(X, codes, 48)
    decoded = asymmetric_topk(decoder.queries(Q), codes, 5, code_scale=decoder.scales(X, codes), metric="dot")
    for settings, size, wanted in (({"decoded": False}, 6, found), ({}, 8, decoded)):
        coder = graded_methods.ours(X, 8 * size, 0, {"epochs": 1, **settings})(X)
        assert coder.bytes == size
        np.testing.assert_allclose(
            -np.sort(-coder.asymmetric(Q), axis=1)[:, :5], -wanted.distances, rtol=1e-4, atol=1e-4
        )


@pytest.mark.filterwarnings("ignore")
def test_methods_run_and_tables_goals_and_picture_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    own = [small_method(m) for m in methods.METHODS if m.name in ("graded-ours", "graded-rabitq-4", "graded-osq-2")]
    monkeypatch.setattr(run, "METHODS", own)
    names = [(name, moved) for moved in (False, True) for name in graded_task.LEARNED_FROM]
    for name, moved in names:
        task = small_task(f"l-{name}{'-moved' * moved}", moved)
        run.floors(task, tmp_path)
        assert run.run(task, own, [128], [0, 1], tmp_path) == 2 * len(own)
        for line in results.read(tmp_path, task.name):
            if line["kind"] == "run":
                assert set(line["metrics"]) == {f"{mode} corpus" for mode in graded_task.MODES}
                assert all(0.3 < scores["nDCG@10"] <= 1.0 for scores in line["metrics"].values())
    monkeypatch.setattr(
        graded_plot, "LINES", {"fasthash": (("graded-ours",), "C0", "o"), "RaBitQ": (("graded-rabitq-4",), "C1", "s")}
    )
    text = tables.write_tables(tmp_path, tmp_path).read_text()
    assert text.count("### Codes against codes") == 6
    assert "task l-captions, 16 bytes, must: nDCG@10" in text
    assert "nan" not in text
    assert graded_plot.graded_figure(tmp_path) is not None
    assert graded_plot.graded_figure(tmp_path / "nothing") is None


@pytest.mark.parametrize(("mine", "reached"), [(0.50, True), (0.44, False)])
def test_goals_take_the_best_rival_of_at_most_as_many_bytes(mine: float, reached: bool) -> None:
    runs: graded_acceptance.Runs = {}
    for name, bits, found in (
        ("graded-ours", 256, (mine - 0.01, mine + 0.01)),
        ("graded-itq", 128, (0.47, 0.47)),  # fewer bytes
        ("graded-pq", 256, (0.4, 0.4)),
        ("graded-pq", 512, (0.9, 0.9)),  # more bytes
        ("graded-itq-decoded", 256, (0.9, 0.9)),  # the same search, untrained: no rival
    ):
        sides = {f"{mode} corpus": {"nDCG@10": 0.0, "bytes": bits / 8} for mode in graded_task.MODES}
        runs["l-captions", name, bits] = [
            {"metrics": sides | {"asymmetric corpus": {"nDCG@10": value, "bytes": bits / 8}}} for value in found
        ]
    goals = {text: (value, limit, note) for text, value, limit, note in graded_acceptance.graded_goals(runs)}
    value, limit, note = goals["task l-captions, 32 bytes, must: nDCG@10"]
    assert limit == pytest.approx(0.47 - np.std([-0.01, 0.01], ddof=1))
    assert note == " (itq - spread)"
    assert (value >= limit) == reached


def test_the_corpora_are_as_their_notes_say(shared_data: Path) -> None:
    for name in ("captions", "clinc150"):
        task = graded_task.task_l(shared_data, name=name)
        gain = graded_task.gains(*task.test["corpus"])
        assert gain.shape[0] == graded_texts.QUERIES
        wanted = {"captions": (4.0, 1.0), "clinc150": (50.0, 2.0)}[name]
        assert float((gain == wanted[1]).sum(1).min()) >= wanted[0] - 1
        assert float(gain.max()) == wanted[1]
        asked = [queries["corpus"][0].y[:, 0].tolist() for queries in (task.validation, task.test)]
        assert name != "captions" or not set(asked[0]) & set(asked[1])
