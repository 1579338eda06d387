"""The harness of the experiments: its metrics, its noise, that it resumes, that tables come from the runs alone."""

from __future__ import annotations

import concurrent.futures
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hasher_cases import blobs

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks" / "quality").is_dir():
    pytest.skip("the benchmarks are not here", allow_module_level=True)
sys.path.append(str(ROOT))  # last: the sources beside it have no compiled extension

from benchmarks.quality import fits, image_tasks, measure, methods, noise, results, run, tables, tasks  # noqa: E402
from benchmarks.quality.__main__ import main  # noqa: E402
from fasthash import Hierarchy, evaluate, metrics, pack_bits  # noqa: E402


def small_task(kind: str = "classes") -> tasks.Task:
    (X, y), (V, v), (T, t) = blobs(300), blobs(270, 1), blobs(60, 2)
    train, query, test = tasks.Items(X, y), tasks.Items(V, v), tasks.Items(T, t)
    if kind == "groups":
        everything = tasks.Items(np.concatenate([X, T]), np.concatenate([y, t]))
        own = {"validation": np.arange(0, 300, 7), "test": np.arange(300, 360)}
        sides = {"all": (query, everything)}, {"all": (test, everything)}
        return tasks.Task("d", "blobs", "groups", train, *sides, (8, 16), own=own)
    hierarchy = Hierarchy.from_edges([(f"pair {c // 2}", c) for c in range(6)])
    sides = {"train": (query, train)}, {"train": (test, train), "val": (test, query)}
    return tasks.Task("a", "blobs", kind, train, *sides, (8, 16), hierarchy)


def test_metrics_are_those_of_the_package() -> None:
    task = small_task()
    items = task.test["train"]
    model = fits.Model(lambda X: X[:, :8], "cosine")
    codes = [model.codes(item.X) for item in items]
    similarity = task.similarity
    labels = items[0].y, items[1].y
    for sides, metric in (([item.X for item in items], "cosine"), (codes, None)):
        found = measure.measure_classes(measure.array_ranking(sides, items, metric), similarity)
        assert found["mAP"] == pytest.approx(metrics.mean_average_precision(*sides, *labels, metric=metric))
        for variant, name in (("mean", "mAHP@250"), ("trapezoid", "mAHP@250 trapezoid")):
            wanted = metrics.hierarchical_precision(*sides, *labels, similarity, at=250, variant=variant, metric=metric)
            assert found[name] == pytest.approx(wanted)
        assert found["P@10"] == pytest.approx(metrics.precision_at(*sides, *labels, 10, metric=metric))
        assert found["R@100"] == pytest.approx(metrics.recall_at(*sides, *labels, 100, metric=metric))
        assert found["nDCG@10"] == pytest.approx(metrics.ndcg(*sides, *labels, 10, metric=metric))
    of_codes = measure.measure_codes(model, items, similarity, 8)
    assert {name: of_codes[name] for name in found} == found
    overlap = evaluate.overlap_at(*codes, *(item.X for item in items), *labels, 10)
    assert of_codes["overlap@10"] == pytest.approx(overlap)
    assert of_codes["codes"] == len(np.unique(codes[1]))


def test_group_metrics_are_averages_over_shuffled_ties() -> None:
    task = small_task("groups")
    database = task.test["all"][1]
    codes = pack_bits(database.X[:, :6], threshold=0.0)
    found = measure.measure_groups(measure.code_distances(codes), task, "test")
    assert task.own is not None
    rng, recalls, overlaps = np.random.default_rng(0), [], []
    unit = database.X / np.linalg.norm(database.X, axis=1, keepdims=True)
    bits = np.unpackbits(codes, axis=1)
    for query in task.own["test"]:
        distances = (bits != bits[query]).sum(1).astype(float)
        distances[query] = np.inf
        cosines = unit @ unit[query]
        cosines[query] = -2
        near = set(np.argsort(-cosines)[:10])
        same = set(np.flatnonzero(database.y == database.y[query])) - {query}
        for _ in range(60):
            top = set(np.lexsort((rng.random(len(distances)), distances))[:10].tolist())
            recalls.append(len(top & same) / len(same))
            overlaps.append(len(top & near) / 10)
    assert found["R@10"] == pytest.approx(np.mean(recalls), abs=0.003)
    assert found["overlap@10"] == pytest.approx(np.mean(overlaps), abs=0.02)


def test_asymmetric_distances_order_as_those_of_the_index() -> None:
    u = np.random.default_rng(0).normal(size=(20, 16)).astype(np.float32)
    codes = pack_bits(u, threshold=0.0)
    found = measure.asymmetric_distances(u, codes, 16)(np.arange(20))
    q = torch.from_numpy(0.5 + u / (2 * np.abs(u).max()))
    bits = torch.from_numpy(np.unpackbits(codes, axis=1).astype(np.float32))
    wanted = torch.cdist(q, bits, p=1)
    slope, shift = np.polyfit(found.numpy().ravel(), wanted.numpy().ravel(), 1)
    np.testing.assert_allclose(slope * found + shift, wanted, atol=1e-4)
    assert slope > 0


def test_noise_belongs_to_the_pair() -> None:
    table, classes = 1 - torch.eye(3), torch.arange(4000) % 3
    distances = noise.NoisyDistances(table, classes, 0.2, seed=0)
    rows = torch.arange(0, 4000, 10)
    found = distances(rows)
    assert torch.equal(found, found.T)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    assert torch.equal(distances(rows[order]), found[order][:, order])
    off = ~torch.eye(400, dtype=torch.bool)
    errors = (found - table[classes[rows][:, None], classes[rows]])[off]
    assert float(errors.mean()) == pytest.approx(0, abs=2e-3)
    assert float(errors.std()) == pytest.approx(0.2, rel=0.01)
    assert float((errors.abs() < 0.2).float().mean()) == pytest.approx(0.6827, abs=5e-3)
    assert not torch.equal(found, noise.NoisyDistances(table, classes, 0.2, seed=1)(rows))


def quick(name: str, title: str, **more: Any) -> methods.Method:
    fit = fits.fit_hasher("l1", epochs=2, hidden=(16,), batch_size=64)
    return methods.Method(name, title, "labels", fit, ({}, {"lr": 1e-3}), tasks=("a", "d"), **more)


def test_runs_resume_and_tables_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = (
        methods.Method("itq", "ITQ", "inputs", fits.fit_linear(fits.baselines.itq, True), tasks=("a", "d")),
        quick("ours", "fasthash"),
        quick("ours-no-kl", "no KL", base="ours", change={"kl": 0.0}),
    )
    monkeypatch.setattr(methods, "METHODS", chosen)
    for module in (run, tables):
        monkeypatch.setattr(module, "METHODS", chosen)
    monkeypatch.setattr(tables, "TITLES", {m.name: m.title for m in chosen})
    monkeypatch.setattr(run, "TUNING_BITS", 8)
    for task in (small_task(), small_task("groups")):
        if task.kind == "groups":  # settings are chosen at each width
            monkeypatch.setattr(run, "TUNING_BITS", 64)
        run.floors(task, tmp_path)
        assert run.run(task, list(chosen), [8], [0, 1], tmp_path) == 6
        file = tmp_path / f"{task.name}.jsonl"
        lines = file.read_text().splitlines()
        assert len(lines) == 8  # the floors, six runs, the settings tried of "ours"
        lost = next(line for line in lines if json.loads(line)["kind"] == "run" and json.loads(line)["seed"] == 1)
        kept = [line for line in lines if line != lost]
        file.write_text("".join(f"{line}\n" for line in kept))
        assert run.run(task, list(chosen), [8], [0, 1], tmp_path) == 1
        again = file.read_text().splitlines()
        assert [line for line in again if line in kept] == kept
        assert json.loads(again[lines.index(lost)])["metrics"] == json.loads(lost)["metrics"]
    found = results.read(tmp_path, "a")
    tuned = results.find(found, kind="tuning", method="ours")
    assert tuned is not None
    assert set(tuned["scores"]) == {"{}", '{"lr": 0.001}'}
    best = max(tuned["scores"], key=tuned["scores"].get)
    done = results.find(found, kind="run", method="ours-no-kl", seed=0)
    assert done is not None
    assert done["settings"] == {**json.loads(best), "kl": 0.0}
    text = tables.write_tables(tmp_path, tmp_path).read_text()
    assert "| fasthash (2) |" in text
    assert "- fasthash, 8 bits: " in text
    assert "*coarse labels*" in text
    assert "float query against codes" in text
    assert f"{tuned['scores'][best]:.4f}**" in text
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def put_one(folder: Path, seed: int) -> None:
    results.put(folder, {"kind": "run", "task": "a", "method": "ours", "bits": 64, "seed": seed, "metrics": {}})


def test_a_line_of_results_is_replaced_and_lines_keep_their_order(tmp_path: Path) -> None:
    for bits in (128, 16, 64):
        results.put(tmp_path, {"kind": "run", "task": "a", "method": "ours", "bits": bits, "seed": 0, "value": 1})
    results.put(tmp_path, {"kind": "floors", "task": "a", "metrics": {}})
    results.put(tmp_path, {"kind": "run", "task": "b", "method": "ours", "bits": 16, "seed": 0, "value": 1})
    results.put(tmp_path, {"kind": "run", "task": "a", "method": "ours", "bits": 64, "seed": 0, "value": 2})
    lines = results.read(tmp_path, "a")
    assert [(line["kind"], line.get("bits"), line.get("value")) for line in lines] == [
        ("floors", None, None),
        ("run", 16, 1),
        ("run", 64, 2),
        ("run", 128, 1),
    ]
    assert set(results.read_all(tmp_path)) == {"a", "b"}
    before = (tmp_path / "a.jsonl").read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        results.put(tmp_path, {"kind": "floors", "task": "a", "metrics": {"mAP": float("nan")}})
    assert (tmp_path / "a.jsonl").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", "b.jsonl"}


@pytest.mark.skipif(sys.platform == "win32", reason="a folder cannot be locked there")
def test_commands_at_the_same_time_lose_no_line(tmp_path: Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(put_one, [tmp_path] * 40, range(40)))
    assert [line["seed"] for line in results.read(tmp_path, "a")] == list(range(40))


@pytest.mark.skipif(not results.FOLDER.is_dir(), reason="the results of the runs are not here")
def test_every_result_has_its_line_once() -> None:
    found = results.read_all(results.FOLDER)
    assert found
    for task, lines in found.items():
        names = [(line["kind"], line.get("method", ""), line.get("bits", 0), line.get("seed", 0)) for line in lines]
        assert names == sorted(set(names)), task
        assert {line["task"] for line in lines} == {task}
        assert {line["kind"] for line in lines} <= {"floors", "run", "tuning"}


def test_every_learning_method_has_as_many_settings() -> None:
    for method in methods.METHODS:
        fixed = (
            "lsh",
            "pca",
            "itq",
            "rotation",
            "sign",
            "features-itq",
            "views-itq",
            "few-itq",
            "few-untrained",
            "ours-default",
            "ours-undivided",
            *(name for name in (m.name for m in methods.METHODS) if name.startswith("graded-") and "ours" not in name),
        )
        if method.name == "graded-ours":
            continue  # nothing of its rivals can be set, and the best of them at each size is what it has to reach
        learns = method.base is None and method.name not in fixed
        for settings in (method.settings, *method.elsewhere.values()):
            assert len(settings) == (methods.TRIED if learns else 1), method.name
        assert method.base is None or any(m.name == method.base for m in methods.METHODS)


def test_missing_data_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    assert main(["--task", "d", "--data", str(tmp_path), "--threads", str(threads)]) == 2
    assert "task d: coco_captions: " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([])


def test_tasks_leave_out_what_was_seen() -> None:
    task = tasks.task_a(Path())
    assert len(task.test["train"][0].y) == 4498
    assert any("2 texts of test are in train too" in note for note in task.notes)
    unseen = tasks.task_unseen(Path())
    tested, validated = (set(side["train"][0].y.tolist()) for side in (unseen.test, unseen.validation))
    assert len(tested) == len(validated) == 30
    assert not tested & validated
    assert not tested & set(unseen.train.y.tolist())
    assert unseen.validation_train is not None
    assert not (tested | validated) & set(unseen.validation_train.y.tolist())
    assert not tested & set(unseen.test["seen"][0].y.tolist())


@pytest.mark.parametrize("reduced", [False, True])
def test_unseen_images_are_left_out(shared_data: Path, reduced: bool) -> None:
    task = image_tasks.task_unseen_images(shared_data, reduced=reduced)
    tested, validated = (set(side["train"][0].y.tolist()) for side in (task.test, task.validation))
    assert len(tested) == len(validated) == (5 if reduced else 20)
    assert task.validation_train is not None
    assert not tested & validated
    assert not tested & set(task.train.y.tolist())
    assert not tested & set(task.test["seen"][0].y.tolist())
    assert not (tested | validated) & set(task.validation_train.y.tolist())
    assert tested | set(task.train.y.tolist()) == set(task.test["train"][1].y.tolist())


def test_images_from_cifar_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "cifar10"
    folder.mkdir()
    rows = {}
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        labels = np.arange(40) % 10
        pixels = (rng.integers(0, 60, size=(40, 3072)) + 18 * labels[:, None]).astype(np.uint8)
        rows[name] = np.hstack([labels[:, None].astype(np.uint8), pixels])
    rows["test_batch"][3] = rows["data_batch_2"][13]
    for name, data in rows.items():
        (folder / f"{name}.bin").write_bytes(data.tobytes())
    task = image_tasks.task_c(tmp_path, reduced=True)
    assert "1 test images are in train too, pixel by pixel, and left out: rows 3" in task.notes[0]
    assert {name: len(queries.y) for name, (queries, _) in task.test.items()} == {"train": 39, "held out": 39}
    assert {name: len(items.y) for name, (_, items) in task.test.items()} == {"train": 180, "held out": 20}
    monkeypatch.setattr(image_tasks, "REDUCED_EPOCHS", 1)
    for settings in (
        {},
        {"supervision": "similarity"},
        {"preserve": 0.5},
        {"loss": "orthohash"},
        {"loss": "contrastive", "loss.temperature": 0.2},
    ):
        fixed = {"loss": settings["loss"]} if "loss" in settings else {}
        model = fits.fit_hasher("l1", **fixed)(task, task.train, 16, 0, settings)
        found = run.measure(task, model, 16)
        assert 0 < found["codes train"]["mAP"] <= 1
        assert set(found) == {"codes train", "outputs train", "codes held out"}
    for name in ("class-byte", "class-byte-itq"):
        byte = next(m for m in methods.METHODS if m.name == name)
        found = run.measure(task, byte.fit(task, byte.rows(task.train), 16, 0, byte.settings[0]), 16)
        assert set(found) == {"codes train", "codes held out"}
        assert found["codes train"]["mAP"] > 0.5
        assert found["codes train"]["overlap@10"] > 0
        assert found["codes held out"]["overlap@10"] is None  # no class has more than 10 rows there
    lsh = next(m for m in methods.METHODS if m.name == "lsh")
    assert run.measure(task, lsh.fit(task, task.train, 16, 0, {}), 16)["codes train"]["mAP"] > 0.2
    run.floors(task, tmp_path)
    floors = results.find(results.read(tmp_path, "c-reduced"), kind="floors")
    assert floors is not None
    assert floors["metrics"]["random train"]["mAP"] < 0.2


def test_the_developers_tiny_imagenet(shared_data: Path) -> None:
    folder = shared_data / "tiny_imagenet_32"
    heights = np.load(folder / "lcs_height.npy")
    found = image_tasks.tiny_imagenet_hierarchy(folder).distance_matrix(range(180))
    np.testing.assert_allclose(found, heights, atol=1e-6)
