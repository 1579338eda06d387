"""The few-shot tasks of benchmarks.quality: their splits, their measure, and the table of acceptance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hasher_cases import blobs

from benchmarks.quality import few_shot, methods, results, run, tables
from benchmarks.quality.__main__ import TASKS, TOGETHER, main
from benchmarks.quality.few_shot_acceptance import few_shot_acceptance
from benchmarks.quality.tasks import Episodes, Items, Task
from fasthash.losses.published import ICNNLoss, MeanLoss, PrototypeTripletLoss
from fasthash.train import EpisodeBatches

FEW = [method for method in methods.METHODS if method.name.startswith("few-")]


def classes_of(task: Task) -> list[set[int]]:
    sides = (task.train, task.validation["episodes"][0], task.test["episodes"][0])
    return [set(items.y.tolist()) for items in sides]


@pytest.mark.parametrize(("name", "sizes"), [("j-clinc150-1-shot", (90, 30, 30)), ("j-clinc150-5-shot", (90, 30, 30))])
def test_classes_of_the_three_parts_are_disjoint(name: str, sizes: tuple[int, ...]) -> None:
    task = TASKS[name](Path())
    parts = classes_of(task)
    assert tuple(map(len, parts)) == sizes
    assert len(set.union(*parts)) == sum(sizes)
    assert task.hierarchy is not None  # it knows the intents that are fitted, and no other
    assert not (parts[1] | parts[2]) & set(task.hierarchy.leaves)
    known = {row.tobytes() for row in task.train.X}
    asked = [row.tobytes() for row in task.test["episodes"][0].X]
    assert not known & set(asked)


def test_classes_of_images_are_disjoint(shared_data: Path) -> None:
    folder = shared_data / "tiny_imagenet_32"
    if not folder.exists():
        pytest.skip(f"no {folder}")
    parts = classes_of(few_shot.task_images(shared_data, shot=1))
    assert tuple(map(len, parts)) == (100, 40, 40)
    assert len(set.union(*parts)) == 180


def test_task_j_is_all_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert TOGETHER["j"] == tuple(name for name in TASKS if name.startswith("j-")) == methods.FEW_SHOT
    assert {kind for method in FEW for kind in method.tasks} == set(TOGETHER["j"])
    assert main(["--task", "j-images-1-shot-reduced", "--data", str(tmp_path)]) == 2
    assert "task j-images-1-shot-reduced: " in capsys.readouterr().err


@pytest.mark.parametrize("shot", [1, 2, 5])
@pytest.mark.parametrize("values", ["real", "codes"])
def test_accuracy_is_that_of_a_loop(shot: int, values: str) -> None:
    """Codes of three bits: many queries are as near to several prototypes."""
    generator = np.random.default_rng(shot)
    for _ in range(10):
        rows = generator.standard_normal((4, shot + 3, 3))
        rows = np.sign(rows) if values == "codes" else rows
        prototypes = rows[:, :shot].mean(1)
        parts = []
        for own in range(4):
            for query in rows[own, shot:]:
                distances = ((prototypes - query) ** 2).sum(1)
                nearest = np.flatnonzero(np.isclose(distances, distances.min(), rtol=1e-9, atol=1e-12))
                parts.append((own in nearest) / len(nearest))
        assert few_shot.accuracy(torch.from_numpy(rows), shot) == pytest.approx(np.mean(parts))


def test_measure_knows_chance_and_what_is_perfect() -> None:
    y = np.repeat(np.arange(6), 12)
    episodes = Episodes(4, 1, 5, 4, 5, 50)
    perfect = few_shot.measure_episodes(np.eye(6)[y], y, episodes, 20)
    assert perfect == pytest.approx({"accuracy": 1.0, "interval": 0.0, "ICNN": 1.0}, abs=1e-6)
    equal = few_shot.measure_episodes(np.zeros((72, 3)), y, episodes, 20)
    assert equal["accuracy"] == pytest.approx(0.25)
    noise = np.random.default_rng(0).standard_normal((72, 8))
    found = few_shot.measure_episodes(noise, y, episodes, 200)
    assert found == few_shot.measure_episodes(noise, y, episodes, 200)
    assert found["accuracy"] == pytest.approx(0.25, abs=0.05)
    drawn = EpisodeBatches(y, way=4, shot=1, queries=5, batches=200, seed=0)
    each = [few_shot.accuracy(torch.from_numpy(noise[batch]).view(4, 6, 8), 1) for batch in drawn]
    assert found["accuracy"] == pytest.approx(np.mean(each))
    assert found["interval"] == pytest.approx(1.96 * np.std(each, ddof=1) / np.sqrt(200))


def test_each_loss_takes_the_settings_that_it_knows() -> None:
    loss = few_shot.episode_loss(("prototype_triplet", "icnn"), 5, {"margin": 2.0, "neighbors": 3})
    assert isinstance(loss, MeanLoss)
    triplet, icnn = loss.losses
    assert isinstance(triplet, PrototypeTripletLoss)
    assert isinstance(icnn, ICNNLoss)
    assert (triplet.shot, triplet.margin, icnn.neighbors) == (5, 2.0, 3)
    assert isinstance(few_shot.episode_loss(("icnn",), 1, {}), ICNNLoss)


def test_pooled_images_are_means_of_four_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)
    found = few_shot.pooled(images)
    assert found.shape == (3, 2 * 3 * 3)
    assert found.reshape(3, 2, 3, 3)[1, 1, 2] == pytest.approx(images[1, 2:, 4:].mean((0, 1)) / 255)
    assert few_shot.pooled(found) is found


def small_task(kind: str) -> Task:
    X, y = blobs(480)
    if kind == "images":
        X = np.clip(X[:, :12].repeat(256, 1).reshape(480, 32, 32, 3) * 20 + 128, 0, 255).astype(np.uint8)
    parts = [Items(X[np.isin(y, chosen)], y[np.isin(y, chosen)]) for chosen in ([0, 1], [2, 3], [4, 5])]
    sides = [{"episodes": (part, part)} for part in parts[1:]]
    name = "j-clinc150-1-shot" if kind == "classes" else "j-images-1-shot-reduced"
    return Task(name, "blobs", kind, parts[0], *sides, (8,), notes=(), episodes=Episodes(2, 1, 3, 2, 2, 20))


@pytest.mark.parametrize("kind", ["classes", "images"])
def test_methods_run_and_its_tables_follow(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = small_task(kind)
    for name, value in (("EMBEDDING_EPOCHS", 1), ("IMAGE_EPISODES", 30), ("IMAGE_WIDTH", 8)):
        monkeypatch.setattr(few_shot, name, value)
    monkeypatch.setattr(run, "VALIDATED", 5)
    run.floors(task, tmp_path)
    names = ("few-itq", "few-untrained", "few-both", "few-sum-no-icnn", "few-ours")
    chosen = [method for method in FEW if method.name in names]
    assert run.run(task, chosen, [8], [0], tmp_path) == len(names)
    lines = results.read(tmp_path, task.name)
    assert sum(line["kind"] == "tuning" for line in lines) == 3
    floors = results.find(lines, kind="floors")
    assert floors is not None
    assert floors["metrics"]["random episodes"] == {"accuracy": 0.5}
    for line in (line for line in lines if line["kind"] == "run"):
        assert set(line["metrics"]) == {"outputs episodes", "codes episodes"}
        assert all(0 <= value <= 1 for side in line["metrics"].values() for value in side.values())
    text = tables.write_tables(tmp_path, tmp_path).read_text()
    assert "| method | accuracy | ICNN | outputs accuracy | retention |" in text
    assert f"| *sign(x - mean), {task.train.flat.shape[1]} bits* |" in text
    assert "| fasthash, labels (1) |" in text


def made_up(accuracy: dict[str, float], icnn: dict[str, float], task: str) -> dict[Any, list[dict[str, Any]]]:
    runs = {}
    for method in FEW:
        each = []
        for change in (-0.001, 0.0, 0.001):
            found = {"accuracy": accuracy.get(method.name, 0.7) + change, "interval": 0.00196}
            found["ICNN"] = icnn.get(method.name, 0.66)
            each.append({"metrics": {"outputs episodes": found, "codes episodes": found}})
        runs[task, method.name, 64] = each
    return runs


def test_acceptance_passes_and_fails() -> None:
    assert few_shot_acceptance({}) == []
    better = {"few-sum": 0.71, "few-ours": 0.8, "few-both": 0.69, "few-sum-no-icnn": 0.72}
    runs = made_up(better, {"few-untrained": 0.6}, "j-clinc150-1-shot")
    worse = {"few-sum": 0.696, "few-ours": 0.6}
    runs |= made_up(worse, {"few-untrained": 0.6, "few-icnn": 0.649}, "j-clinc150-5-shot")
    rows = [line.split(" | ") for line in few_shot_acceptance(runs) if line.startswith("| ")]
    passed = {(row[0], row[1]): row[-1] for row in rows if len(row) == 5}
    failed = [what for what, text in passed.items() if "fail" in text]
    assert [task for task, _ in failed] == ["| j-clinc150-5-shot"] * 5
    starts = ("ICNN: ICNN score", "ProtoNet + prototype triplet + ICNN: accuracy, ProtoNet - 0.003")
    assert [sum(what.startswith(start) for _, what in failed) for start in starts] == [1, 1]
    assert passed["| all", "ProtoNet + prototype triplet + ICNN is above ProtoNet: number of tasks, of 2"] == "pass |"
    ablations = {(row[0], row[1], row[2]): row[-1] for row in rows if len(row) == 8}
    whole = "ProtoNet + prototype triplet + ICNN"
    found = [ablations["| j-clinc150-1-shot", whole, term] for term in ("ProtoNet", "prototype triplet", "ICNN")]
    assert found == ["needed |", "needed |", "helps to leave out |"]
    assert ablations["| j-clinc150-5-shot", "prototype triplet + ICNN", "ICNN"] == "idle |"
