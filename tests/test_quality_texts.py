"""The harness's task g: bags of words, its methods, its table of acceptance."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks" / "quality").is_dir():
    pytest.skip("the benchmarks are not here", allow_module_level=True)
pytest.importorskip("sklearn")
sys.path.append(str(ROOT))  # last: the sources beside it have no compiled extension

from benchmarks.quality import fits, methods, run, tables, tasks, text_acceptance, text_task  # noqa: E402
from fasthash import metrics  # noqa: E402


def bags(rows: int, seed: int) -> tasks.Items:
    """Three classes with ten words of their own each."""
    rng, y = np.random.default_rng(seed), np.arange(rows) % 3
    counts = rng.poisson(0.2, size=(rows, 30))
    counts[np.arange(rows)[:, None], 10 * y[:, None] + rng.integers(0, 10, size=(rows, 4))] += 1
    unit = counts / np.linalg.norm(counts, axis=1, keepdims=True)
    matrix = scipy.sparse.csr_matrix(counts)
    return tasks.Items(tasks.Bags(matrix, scipy.sparse.csr_matrix(unit), unit.astype(np.float32)), y)


def small_task() -> tasks.Task:
    train, query, test = bags(300, 0), bags(60, 1), bags(90, 2)
    sides = {"train": (query, train)}, {"train": (test, train)}
    return tasks.Task("g", "bags", "classes", train, *sides, (16,), score="P@100", outputs=False)


def test_the_task_leaves_out_what_was_seen() -> None:
    task = text_task.task_g(Path())
    (query, database), (validation, _) = task.test["train"], task.validation["train"]
    assert (len(query.y), len(validation.y), len(database.y)) == (4498, 2997, 15_000)
    assert database.X.counts.shape == database.X.tfidf.shape == (15_000, 2770)
    assert (database.X.counts != database.X.counts.astype(int)).nnz == 0
    empty = np.asarray(query.X.counts.sum(axis=1)) == 0  # six have no word that is known
    np.testing.assert_allclose(np.linalg.norm(query.flat, axis=1), 1.0 - empty.ravel(), atol=1e-5)
    assert query.flat.shape == (4498, text_task.FEATURES)
    part = query.part(np.array([5, 2]))
    np.testing.assert_array_equal(part.X.counts.toarray(), query.X.counts.toarray()[[5, 2]])
    np.testing.assert_array_equal(part.flat, query.flat[[5, 2]])


def test_methods_of_the_task_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "TUNING_BITS", 16)
    monkeypatch.setattr(text_task, "EPOCHS", 2)
    task, names = small_task(), ("psh", "psh-gumbel", "psh-straight-through", "psh-no-pair", "itq", "class-byte")
    chosen = [m for m in methods.METHODS if m.name in names]
    assert len(chosen) == len(names)
    assert all("g" in m.tasks for m in chosen)
    run.floors(task, tmp_path)
    assert run.run(task, chosen, [16], [0], tmp_path) == len(chosen)
    text = tables.write_tables(tmp_path, tmp_path).read_text()
    assert "| PSH (DisARM) (1) |" in text
    assert "| 16 | PSH (DisARM) at least Gumbel - 0.005 |" in text
    assert "| 16 | PSH (DisARM), no pairs |" in text


def test_settings_are_chosen_by_precision_of_codes() -> None:
    task = small_task()
    model = fits.Model(lambda X: tasks.flat(X)[:, :16] - 0.1, "l1")
    (query, database) = task.validation["train"]
    codes = model.codes(query.X), model.codes(database.X)
    wanted = metrics.precision_at(*codes, query.y, database.y, 100)
    assert run.validation_score(task, model, 16) == pytest.approx(wanted)


def test_codes_of_texts_are_those_of_the_hasher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_task, "EPOCHS", 2)
    task = small_task()
    model = fits.fit_words(task, task.train, 16, 3, {"pair": 2.0})
    from fasthash import TextHasher

    X = task.train.X.counts
    ours = fits.fit_hasher("l1", epochs=2)(task, task.train, 16, 0, {})
    assert ours.codes(task.train.X).shape == (300, 2)
    hasher = TextHasher(16, seed=3, epochs=2, pair=2.0, progress=False).fit(X, task.train.y)
    np.testing.assert_array_equal(model.codes(task.train.X), hasher.encode(X))


def test_the_table_says_pass_fail_and_idle() -> None:
    def runs(*values: float) -> list[dict[str, object]]:
        return [{"metrics": {"codes train": {"P@100": value}}} for value in values]

    found = {
        ("g", "psh", 32): runs(0.80, 0.82),
        ("g", "psh-straight-through", 32): runs(0.82, 0.80),
        ("g", "psh-gumbel", 32): runs(0.83, 0.83),
        ("g", "psh-vae", 32): runs(0.2, 0.2),
        ("g", "psh-no-pair", 32): runs(0.801, 0.806),
        ("g", "psh-arm", 32): runs(0.70, 0.70),
    }
    text = "\n".join(text_acceptance.text_acceptance(found))
    assert "| at least straight-through | 0.8100 | 0.8100 | pass |" in text.replace("PSH (DisARM) at", "at")
    assert "at least Gumbel - 0.005 | 0.8100 | 0.8250 | **fail** |" in text
    assert "at least the VAE alone + 0.10 | 0.8100 | 0.3000 | pass |" in text
    assert "at least without pairs + 0.01 | 0.8100 | 0.8135 | **fail** |" in text
    assert "larger than the spread | 0.0065 | 0.0177 | **fail** |" in text
    assert "| 32 | PSH (DisARM), no pairs | 0.8100 | 0.8035 | -0.0065 | 0.0177 | idle |" in text
    assert "| 32 | PSH (DisARM), ARM | 0.8100 | 0.7000 | -0.1100 | 0.0141 | needed |" in text
