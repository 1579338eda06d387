"""CIMON in the harness: its task, its rivals without labels, its table of acceptance."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks" / "quality").is_dir():
    pytest.skip("the benchmarks are not here", allow_module_level=True)
sys.path.append(str(ROOT))  # last: the sources beside it have no compiled extension
pytest.importorskip("sklearn")

from benchmarks.quality import methods, results, run, tables, view_acceptance, view_task  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ["cimon", *(f"cimon-{name}" for name in view_acceptance.TERMS), view_acceptance.ITQ, *view_acceptance.RIVALS]


def strokes(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images with a stroke across, down or along a diagonal, somewhere."""
    rng = np.random.default_rng(seed)
    images, labels = np.zeros((count, 28, 28), np.uint8), rng.integers(0, 3, count)
    for image, label in zip(images, labels, strict=True):
        at = rng.integers(10, 18)
        if label == 0:
            image[at - 2 : at + 2, 4:24] = 200
        elif label == 1:
            image[4:24, at - 2 : at + 2] = 200
        else:
            for step in range(4, 24):
                image[step, max(step + at - 16, 0) : max(step + at - 12, 0)] = 200
    images[:, 0, 0] = np.arange(count)  # all differ
    return images, labels


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(view_task, "QUERIES", 30)
    monkeypatch.setattr(view_task, "TRAINED", 120)
    monkeypatch.setattr(view_task, "WIDTH", 16)
    monkeypatch.setattr(run, "TUNING_BITS", 16)
    images, labels = strokes(240)
    (tmp_path / "mnist_test10k").mkdir()
    np.savez(tmp_path / "mnist_test10k" / "data.npz", image=images, label=labels)
    return tmp_path


def test_the_task_keeps_queries_out_of_training(folder: Path) -> None:
    task = view_task.task_mnist(folder)
    queries, database = task.test["all"]
    held, known = task.validation["all"]
    assert [len(each.y) for each in (queries, database, task.train, held, known)] == [30, 210, 120, 30, 180]

    def images(items: Any) -> set[bytes]:
        return {image.tobytes() for image in items.X}

    assert not images(queries) & images(database)
    assert not images(held) & (images(known) | images(queries))
    assert images(task.train) <= images(known) <= images(database)


def test_views_move_images_and_keep_their_shape() -> None:
    images = view_task.as_images(strokes(6)[0][..., None])
    for view in view_task.VIEWS:
        seen = view(images)
        assert seen.shape == images.shape
        assert float(seen.sum() / images.sum()) == pytest.approx(1, abs=0.5)
        assert not torch.equal(seen, view(images))
    torch.testing.assert_close(view_task.turned(images, 0, 0, 1.0), images, atol=1e-4, rtol=0)


def test_directions_of_gradients_tell_strokes_apart() -> None:
    images, labels = strokes(200)
    found = view_task.Gradients(images[..., None]).of(images[..., None])
    assert found.shape == (200, view_task.WIDTH)
    cosine = np.corrcoef(found)
    same = labels[:, None] == labels
    assert cosine[same].mean() > cosine[~same].mean() + 0.3


def test_methods_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fasthash.train import cimon

    monkeypatch.setattr(cimon, "STEPS", 4)
    monkeypatch.setattr(cimon, "EPOCHS", 2)
    task = view_task.task_mnist(folder)
    chosen = [m for m in methods.METHODS if m.name in NAMES]
    assert len(chosen) == len(NAMES)
    out = folder / "results"
    run.floors(task, out)
    assert run.run(task, chosen, [16], [0], out) == len(NAMES)
    lines = {line["method"]: line for line in results.read(out, task.name) if line["kind"] == "run"}
    assert [*lines["cimon"]["reached"]] == ["pairs of view 1", "pairs of view 2"]
    assert [*lines["cimon-one-view"]["reached"]] == ["pairs of view 1"]
    assert lines["cimon-no-clusters"]["settings"]["clusters"] == 0
    monkeypatch.setattr(view_acceptance, "BITS", 16)
    text = tables.write_tables(out, out).read_text()
    assert "Acceptance of CIMON at 16 bits" in text
    assert text.count("precision of pairs of view") == 2


def runs(*values: float) -> list[dict[str, Any]]:
    reached = {"pairs of view 1": {"precision of pairs": 0.5, "precision of pairs kept": 0.8}}
    return [{"metrics": {"codes all": {"mAP": value}}, "reached": reached} for value in values]


def test_the_table_says_pass_and_fail() -> None:
    found = {
        ("m-mnist", "cimon", 64): runs(0.70, 0.72),
        ("m-mnist", "views-itq", 64): runs(0.60, 0.60),
        ("m-mnist", "views-sdc", 64): runs(0.72, 0.72),
        ("m-mnist", "cimon-no-confidence", 64): runs(0.72, 0.72),
        ("m-mnist", "cimon-no-clusters", 64): runs(0.69, 0.69),
    }
    text = "\n".join(view_acceptance.view_acceptance(found, "m-mnist"))
    assert "| mAP less that of ITQ of what pairs are mined from | +0.1100 | > 0.10 | pass |" in text
    assert "| mAP less that of SDC | -0.0100 | > 0 | **fail** |" in text
    assert "| mAP gained by the confidence (W1 = 1) | -0.0100 | >= -0.005 | **fail** |" in text
    assert "| mAP gained by the clusters (W2 = 1) | +0.0200 | >= -0.005 | pass |" in text
    assert "| parts that gain at least 0.01 | 1 | >= 2 | **fail** |" in text
    assert "| precision of pairs of view 1, after refinement (before: 0.500) | 0.800 | > 0.500 | pass |" in text
    assert view_acceptance.view_acceptance({}, "m-mnist") == []
