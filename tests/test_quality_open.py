"""The harness: the trivial rivals against an oracle, and the tasks where rows of the database have no label."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hasher_cases import blobs

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks" / "quality").is_dir():
    pytest.skip("the benchmarks are not here", allow_module_level=True)
pytest.importorskip("sklearn")
sys.path.append(str(ROOT))  # last: the sources beside it have no compiled extension

from benchmarks.quality import (  # noqa: E402
    class_byte,
    fits,
    goals,
    measure,
    methods,
    open_tasks,
    plots,
    results,
    run,
    tables,
    tasks,
)
from benchmarks.quality.__main__ import TASKS  # noqa: E402
from fasthash import Hierarchy, evaluate, metrics, pack_bits  # noqa: E402
from fasthash.datasets import clinc150  # noqa: E402

HIERARCHY = Hierarchy.from_edges([(f"pair {c // 2}", c) for c in range(6)])


def open_task(half: bool = False) -> tasks.Task:
    (X, y), (T, t) = blobs(300), blobs(60, 2)
    task = tasks.Task("e-open", "blobs", "classes", tasks.Items(X, y), {}, {}, (16,), HIERARCHY)
    return open_tasks.opened(task, tasks.Items(T, t), (np.array([1, 4]), np.array([0, 5])), half)


def oracle_distances(model: class_byte.ClassByte, sides: tuple[tasks.Items, tasks.Items], rank: str) -> np.ndarray:
    """[Q, N], from the definition: one query, one class at a time."""
    p = model.probabilities(sides[0].X)
    byte = model.codes(sides[1].X)[:, 0]
    bits = [np.unpackbits(model.codes(items.X)[:, 1:], axis=1) for items in sides]
    distances = np.zeros((len(p), len(byte)))
    for q in range(len(p)):
        expected = [sum(p[q, d] * model.similarity[d, c] for d in range(p.shape[1])) for c in range(p.shape[1])]
        for n, c in enumerate(byte):
            if model.residual is None:
                distances[q, n] = -(p[q, c] if rank == "class" else expected[c])
            elif model.graded:
                distances[q, n] = round(model.weight * (1 - expected[c]))
            else:
                distances[q, n] = model.weight * (c != p[q].argmax())
            distances[q, n] += (bits[0][q] != bits[1][n]).sum()
    return distances


@pytest.mark.parametrize("settings", [{}, {"weight": 9}, {"weight": 5, "graded": False}])
def test_the_class_byte_ranks_as_it_is_defined(settings: dict[str, int]) -> None:
    task = open_task()
    model = fits.fit_byte(task, task.train, 16, 0, settings)
    sides = task.test["known"]
    codes = model.codes(sides[1].X)
    assert codes.shape == (300, 2 if settings else 1)
    known = np.unique(task.train.labelled.y)
    assert (known[codes[:, 0]] == sides[1].y)[np.isin(sides[1].y, known)].mean() > 0.8
    names = ("mAP", "mAHP@250", "overlap@10")
    wanted: dict[str, list[float]] = {name: [] for name in names}
    for rank in ("class", "hierarchy"):
        distances = oracle_distances(model, sides, rank).astype(np.float32)  # a distance is one feature, from 0
        offset = distances.min()
        for q, row in enumerate(distances - offset):
            pair = np.zeros((1, 1), np.float32), row[:, None]
            labels = sides[0].y[q : q + 1], sides[1].y
            if rank == "class":
                wanted["mAP"].append(metrics.mean_average_precision(*pair, *labels))
                inputs = sides[0].X[q : q + 1], sides[1].X
                wanted["overlap@10"].append(evaluate.overlap_at(*pair, *inputs, *labels, 10))
            else:
                score = metrics.hierarchical_precision(*pair, *labels, task.similarity, at=250)
                wanted["mAHP@250"].append(score)
    found = measure.measure_codes(model, sides, task.similarity, 16)
    for name in names:
        assert found[name] == pytest.approx(np.mean(wanted[name]), abs=1e-6), name
    assert "P@radius2" not in found
    assert found["codes"] == len(np.unique(codes, axis=0))


def test_equal_scores_are_tied() -> None:
    scores = np.array([[0.2, 0.5, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25]])
    np.testing.assert_array_equal(class_byte._places(scores), [[1, 0, 1, 2], [0, 0, 0, 0]])


def test_the_residual_is_of_the_predicted_class_and_fitted_on_all_rows() -> None:
    task = open_task()
    model = fits.fit_byte(task, task.train, 16, 3, {"weight": 9})
    rows = task.train.labelled
    known = np.unique(rows.y)
    means = np.stack([rows.X[rows.y == name].mean(0) for name in known])
    left = task.train.X - means[model.probabilities(task.train.X).argmax(1)]
    wanted = class_byte.baselines.itq(left, 8, seed=3).encode(left)
    np.testing.assert_array_equal(model.codes(task.train.X)[:, 1:], wanted)


def test_more_classes_than_a_byte_holds_are_refused() -> None:
    rng = np.random.default_rng(0)
    items = tasks.Items(rng.normal(size=(514, 2)).astype(np.float32), np.arange(514) // 2)
    with pytest.raises(ValueError, match="at most 256 classes fit a byte, got 257"):
        class_byte.fit_class_byte(items, 16, 0, np.eye(257), lambda X: X)


@pytest.mark.parametrize("half", [False, True])
def test_labels_are_hidden_and_rows_stay(half: bool) -> None:
    task = open_tasks.task_open(Path(), half=half)
    assert task.name == ("e-half" if half else "e-open")
    train, (known, database), (unlabelled, same) = clinc150("train"), task.test["known"], task.test["unlabelled"]
    assert database is same
    np.testing.assert_array_equal(database.X, train.embeddings)
    np.testing.assert_array_equal(database.y, train.intents)
    np.testing.assert_array_equal(task.train.X, train.embeddings)
    hidden = set(unlabelled.y.tolist())
    assert len(hidden) == 30
    assert len(set(known.y.tolist())) == 120
    assert not hidden & set(known.y.tolist())
    assert len(known.y) + len(unlabelled.y) == 4498
    has = task.train.y != tasks.UNLABELLED
    np.testing.assert_array_equal(task.train.y[has], train.intents[has])
    counts = np.bincount(train.intents[has], minlength=150)
    assert set(np.flatnonzero(counts == 0).tolist()) == hidden
    assert set(counts[counts > 0].tolist()) == {50 if half else 100}
    assert set(np.bincount(clinc150("train").domains[~np.isin(train.intents, list(hidden))])) == {1200}
    assert task.hierarchy is not None
    assert set(task.hierarchy.leaves) == set(range(150)) - hidden
    np.testing.assert_allclose(task.similarity, tasks.task_a(Path()).similarity)


@pytest.mark.parametrize("half", [False, True])
def test_validation_has_the_same_protocol_among_labelled_rows(half: bool) -> None:
    task = open_tasks.task_open(Path(), half=half)
    fit = task.validation_train
    assert fit is not None
    known, database = task.validation["known"]
    unlabelled = task.validation["unlabelled"][0]
    rows = {row.tobytes() for row in task.train.labelled.X}
    for items in (known, unlabelled, database):
        assert {row.tobytes() for row in items.X} <= rows
    np.testing.assert_array_equal(database.X, fit.X)
    has = fit.y != tasks.UNLABELLED
    np.testing.assert_array_equal(fit.y[has], database.y[has])
    hidden, tested = set(unlabelled.y.tolist()), set(task.test["unlabelled"][0].y.tolist())
    assert len(hidden) == 30
    assert not hidden & tested
    assert not hidden & set(fit.y[has].tolist())
    size = 50 if half else 100
    assert len(known.y) == 90 * size // 5
    assert len(database.y) == 120 * size * 4 // 5
    assert set(np.bincount(fit.y[has])) == {0, size * 4 // 5 // (2 if half else 1)}
    assert task.score == "mAP"


@pytest.mark.parametrize("reduced", [False, True])
def test_images_without_labels(shared_data: Path, reduced: bool) -> None:
    task = open_tasks.task_open_images(shared_data, reduced=reduced, half=True)
    assert task.name == ("e-half-images-reduced" if reduced else "e-half-images")
    hidden = set(task.test["unlabelled"][0].y.tolist())
    assert len(hidden) == (5 if reduced else 20)
    assert not hidden & set(task.train.labelled.y.tolist())
    assert len(task.train.y) == len(task.test["known"][1].y)


def test_rows_that_a_method_is_fitted_on() -> None:
    task = open_task(half=True)
    by_name = {method.name: method for method in methods.METHODS}
    assert len(task.train.labelled.y) == 100
    for name, rows in (("itq", 300), ("sdc", 300), ("class-byte-itq", 300), ("class-byte", 100), ("csq", 100)):
        assert len(by_name[name].rows(task.train).y) == rows, name
    for method in methods.METHODS:
        assert not method.unlabelled or method.learns_from == "labels"


def test_settings_are_chosen_by_the_mean_over_known_and_unlabelled() -> None:
    task = open_task()
    model = fits.fit_linear(fits.baselines.itq, True)(task, task.train, 8, 0, {})
    scores = [
        metrics.mean_average_precision(model.codes(queries.X), model.codes(database.X), queries.y, database.y)
        for queries, database in task.validation.values()
    ]
    assert run.validation_score(task, model, 8) == pytest.approx(np.mean(scores))
    found = run.measure(task, model, 8)
    assert set(found) == {f"{kind} {name}" for kind in ("codes", "outputs") for name in ("known", "unlabelled")}


def test_runs_of_the_rivals_are_kept_and_shown(tmp_path: Path) -> None:
    task = open_task()
    chosen = [method for method in methods.METHODS if method.name in ("itq", "class-byte", "class-byte-itq")]
    run.floors(task, tmp_path)
    assert run.run(task, chosen, [12], [0], tmp_path) == 3
    assert run.run(task, chosen, [12], [0], tmp_path) == 0
    lines = results.read(tmp_path, "e-open")
    assert [(line["kind"], line.get("method")) for line in lines] == [
        ("floors", None),
        *(("run", name) for name in ("class-byte", "class-byte-itq", "itq")),
        *(("tuning", name) for name in ("class-byte", "class-byte-itq")),
    ]
    assert [("histogram" in line, "outputs known" in line["metrics"]) for line in lines[1:4]] == [
        (False, False),
        (False, False),
        (True, True),
    ]
    text = tables.write_tables(tmp_path, tmp_path).read_text()
    assert "| class byte, 8 bits in all (1) |" in text
    assert "outputs mAHP@250 | retention |" in text
    assert "- class byte and ITQ of the residual, 12 bits: " in text


def test_every_method_names_tasks_that_there_are() -> None:
    assert {name for method in methods.METHODS for name in method.tasks} == set(TASKS)


def test_weighted_bits_are_measured_as_repeated_bits() -> None:
    task, groups = open_task(), [(3, 4), (5, 1)]
    sides = task.test["known"]
    repeated = np.repeat(np.arange(8), np.repeat([4, 1], [3, 5]))
    model = fits.Model(lambda X: X[:, :8], "l1", bit_weights=groups)
    found, wanted = (
        run.measure(task, each, bits)
        for each, bits in ((model, 8), (fits.Model(lambda X: X[:, repeated], "l1"), len(repeated)))
    )
    plain = run.measure(task, fits.Model(lambda X: X[:, :8], "l1"), 8)
    for side in ("known", "unlabelled"):
        for kind in ("codes", "outputs"):
            for name in ("mAP", "mAHP@250", "P@10", *(["overlap@10", "codes"] if kind == "codes" else [])):
                assert found[f"{kind} {side}"][name] == pytest.approx(wanted[f"{kind} {side}"][name], abs=2e-5), name
        assert found[f"codes {side}"]["mAP undivided"] == plain[f"codes {side}"]["mAP"]
        assert "mAP undivided" not in plain[f"codes {side}"]
    assert found["codes known"]["mAP"] != plain["codes known"]["mAP"]
    X, rows = sides[1].X, np.arange(9)
    distances = measure.code_distances(pack_bits(X[:, repeated], 0.0))(rows)
    np.testing.assert_array_equal(measure.code_distances(model.codes(X), groups)(rows), distances)


def test_the_hashers_weights_are_used() -> None:
    task = open_task()
    fit = fits.fit_hasher("l1", epochs=1)
    assert fit(task, task.train.labelled, 16, 0, {"item_bits": 6}).bit_weights == [(10, 4), (6, 1)]
    assert fit(task, task.train.labelled, 16, 0, {"item_bits": 0}).bit_weights is None


def test_the_pareto_front_holds_what_nothing_surpasses() -> None:
    rng = np.random.default_rng(0)
    points = [tuple(map(float, point)) for point in rng.integers(0, 6, size=(30, 2))]
    wanted = {
        p for p in points if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points)
    }  # "surpasses": at least as good in both, and another point
    front = plots.pareto_front(points)
    assert set(front) == wanted
    assert front == sorted(wanted)


def put_runs(folder: Path, task: str, sides: tuple[str, ...], value: float) -> None:
    metrics = {f"codes {side}": {"mAP": value, "mAHP@250": value, "overlap@10": 0.5} for side in sides}
    results.put(folder, {"kind": "floors", "task": task, "title": task, "notes": [], "metrics": {}})
    for name in ("class-byte", "itq", "ours-default", "ours-undivided"):
        line = {"kind": "run", "task": task, "method": name, "bits": 64, "seed": 0, "metrics": metrics}
        results.put(folder, line)


def test_figure_tables_and_goals_come_from_the_runs(tmp_path: Path) -> None:
    put_runs(tmp_path, "a", ("train", "val"), 0.96)
    text = tables.write_tables(tmp_path, tmp_path).read_text()
    assert "pareto" not in text
    for task, value in (("e-open", 0.81), ("e-half", 0.69)):
        put_runs(tmp_path, task, ("known", "unlabelled"), value)
    text = tables.write_tables(tmp_path, tmp_path).read_text()
    assert "(figures/pareto.png)" in text
    assert "### 64 bits, codes, database: unlabelled" in text
    assert "| class byte, 8 bits in all (1) | **0.8100** |" in text
    reached = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[-1] for line in text.splitlines()}
    assert reached["task a, 64 bits, database train, defaults: mAP"] == "yes |"
    assert reached["task a, 64 bits, database train, defaults: mAHP@250"] == "**no** |"
    assert reached["task a, 64 bits, database val, defaults: overlap@10"] == "yes |"
    for task, verdict in (("e-open", "yes |"), ("e-half", "**no** |")):
        assert reached[f"task {task}, 64 bits, defaults: mAP of known classes"] == "yes |"
        assert reached[f"task {task}, 64 bits, defaults: mAP of unlabelled classes"] == verdict
    assert len(goals.goals({}, {})) == 2
    pytest.importorskip("matplotlib")
    assert plots._pareto(tmp_path / "nothing", []) is None
    runs = [line for line in results.read(tmp_path, "a") if line["kind"] == "run"]
    figure = plots._pareto(tmp_path, runs)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["task a, mAP", "task a, mAHP@250", "task e-open, mAP", "task e-half, mAP"]
    for axis in figure.axes:
        assert {line.get_label() for line in axis.lines} >= {"ITQ", "class byte, 8 bits in all"}


def test_on_features_fits_and_encodes_what_the_network_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    task = open_task()
    images = dataclasses.replace(task, name="images", kind="images")
    network = torch.nn.Sequential(torch.nn.Linear(task.train.X.shape[1], 5), torch.nn.Linear(5, 64))
    monkeypatch.setattr(fits, "_image_network", lambda *_: network)
    fit = fits.fit_hasher("l1", epochs=1)
    found = fits.on_features(fit)(images, task.train, 16, 0, {"item_bits": 6})

    def below(X: np.ndarray) -> np.ndarray:
        return network[0](torch.from_numpy(X)).detach().numpy()

    rows = tasks.Items(below(task.train.X), task.train.y)
    wanted = fit(task, rows, 16, 0, {"item_bits": 6})
    X = task.test["known"][0].X
    np.testing.assert_array_equal(found.codes(X), wanted.codes(below(X)))
    assert found.bit_weights == wanted.bit_weights == [(10, 4), (6, 1)]


def test_which_method_shows_what_has_runs(tmp_path: Path) -> None:
    page = tmp_path / "which-method.md"
    page.write_text("Before\n<!-- which method -->\nold\n<!-- end -->\nafter\n")
    put_runs(tmp_path, "e-half", ("known", "unlabelled"), 0.69)
    tables.write_tables(tmp_path, tmp_path)
    before, head, _, row, after = (
        line for line in page.read_text().splitlines() if not line.startswith("<!--") and line
    )
    assert (before, after) == ("Before", "after")
    assert len(head.split(" | ")) == len(row.split(" | "))
    assert (
        "| known classes: mAP 0.690; unlabelled: mAP 0.690 | known classes: mAP 0.690; unlabelled: mAP 0.690 (ITQ) |"
        in row
    )
