"""Rows without a label: how they are marked, and the classes that they are given."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hasher_cases import NAMES, QUICK, blobs, hierarchy
from test_train_run import same, stopped_after

from fasthash import Hierarchy
from fasthash.train import Hasher, pseudo_classes
from fasthash.train.features import scan
from fasthash.train.pseudo_classes import find_classes, with_new_classes

pytestmark = pytest.mark.usefixtures("one_thread")

HIDDEN = (4, 5, 6)  # classes of `mixed` that no label names


def mixed(per_class: int = 60, features: int = 16, labelled: float = 0.5, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Seven Gaussian classes, four of which are known: X, the labels (-1 without one), and the true classes."""
    rng = np.random.default_rng(seed)
    truth = np.arange(7 * per_class) % 7
    X = 6 * np.linalg.qr(rng.normal(size=(features, features)))[0][truth] + rng.normal(size=(len(truth), features))
    known = ~np.isin(truth, HIDDEN) & (np.arange(len(truth)) < labelled * len(truth))
    return X.astype(np.float32), np.where(known, truth, -1), truth


def found_in(X: Any, labels: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rows = torch.from_numpy(X)
    found, nearest = find_classes(rows, torch.from_numpy(labels), scan(rows, "X", checksum=False).standard, seed)
    return found.numpy(), nearest.numpy()


def purity(found: np.ndarray, truth: np.ndarray) -> float:
    """The part of the rows whose class is the commonest one of those that were put together with them."""
    return sum(np.bincount(truth[found == group]).max() for group in np.unique(found)) / len(found)


def check_found(found: np.ndarray, nearest: np.ndarray, labels: np.ndarray, truth: np.ndarray) -> None:
    """Hidden rows have new classes, mostly one each; rows of known classes have theirs."""
    np.testing.assert_array_equal(found[labels >= 0], labels[labels >= 0])
    hidden, known = np.isin(truth, HIDDEN), ~np.isin(truth, HIDDEN) & (labels < 0)
    assert (found[hidden] >= 4).mean() > 0.95
    assert purity(found[hidden], truth[hidden]) > 0.95
    assert (found[known] == truth[known]).mean() > 0.95
    assert 3 <= len(nearest) <= 6
    assert ((nearest >= 0) & (nearest < 4)).all()
    assert sorted(np.unique(found[found >= 4])) == list(range(4, 4 + len(nearest)))  # each has rows


# How they are marked


def marks() -> dict[str, tuple[Any, np.ndarray, np.ndarray]]:
    """y by kind of mark, with the rows that have no label and the names of the classes."""
    pandas = pytest.importorskip("pandas")
    y = np.arange(12) % 3
    missing = np.arange(12) % 4 == 1
    holes = [None if gone else int(label) for label, gone in zip(y, missing, strict=True)]
    floats = np.where(missing, np.nan, y)
    names = np.array(["a", "b", "c"])
    strings = [None if gone else str(names[label]) for label, gone in zip(y, missing, strict=True)]
    with_nan = [float("nan") if name is None else name for name in strings]
    minus = np.where(missing, -1, y)
    numbers = np.arange(3)
    given: dict[str, tuple[Any, np.ndarray]] = {
        "list of None": (holes, numbers),
        "tuple of None": (tuple(holes), numbers),
        "list of lists": ([[label] for label in holes], numbers),
        "objects": (np.array(holes, dtype=object), numbers),
        "floats": (floats, numbers),
        "list of floats": (floats.tolist(), numbers),
        "float column": (floats[:, None], numbers),
        "pandas floats": (pandas.Series(floats), numbers),
        "pandas frame": (pandas.DataFrame({"y": floats}), numbers),
        "pandas Int64": (pandas.Series(holes, dtype="Int64"), numbers),
        "pandas strings": (pandas.Series(strings, dtype="string"), names),
        "pandas objects": (pandas.Series(with_nan), names),
        "pandas categories": (pandas.Categorical(strings), names),
        "list of strings": (strings, names),
        "strings and NaN": (with_nan, names),
        "-1": (minus, numbers),
        "list of -1": (minus.tolist(), numbers),
        "int8": (minus.astype(np.int8), numbers),
        "-1 and None": ([-1 if row == 1 else label for row, label in enumerate(holes)], numbers),
        "column": (minus[:, None], numbers),
        "torch": (torch.from_numpy(minus), numbers),
        "torch floats": (torch.from_numpy(floats), numbers),
        "torch bfloat16": (torch.from_numpy(floats).bfloat16(), numbers),
        "torch column": (torch.from_numpy(minus)[:, None], numbers),
        "floats with -1 and NaN": (np.where(np.arange(12) == 1, -1.0, floats), numbers),
        "masked": (np.ma.masked_array(y, missing), numbers),
    }
    return {kind: (y, missing, classes) for kind, (y, classes) in given.items()}


def targets(y: Any, tree: Hierarchy | None = None) -> Any:
    from fasthash.train.supervision import read_targets

    return read_targets(y, len(y), None, tree)


def test_missing_labels_as_people_have_them() -> None:
    for kind, (y, missing, classes) in marks().items():
        found = targets(y)
        assert found.kind == "labels", kind
        assert found.classes == classes.tolist(), kind
        assert found.unlabelled, kind
        np.testing.assert_array_equal(found.values.numpy(), np.where(missing, -1, np.arange(12) % 3), err_msg=kind)


def test_polars_and_arrow_nulls() -> None:
    for library, column in (("polars", "Series"), ("pyarrow", "array")):
        made = getattr(pytest.importorskip(library), column)
        assert targets(made([0, None, 1, 1])).values.tolist() == [0, -1, 1, 1], library
        assert targets(made(["x", None, "y", "x"])).values.tolist() == [0, -1, 1, 0], library


def test_memory_mapped_labels(tmp_path: Path) -> None:
    X, y = blobs()
    y[::7] = -1
    np.save(tmp_path / "y.npy", y.astype(np.int16))
    mapped = np.load(tmp_path / "y.npy", mmap_mode="r")
    assert same(Hasher(**QUICK).fit(X, mapped), Hasher(**QUICK).fit(X, y))
    assert int(mapped.min()) == -1  # was not written to


def test_minus_one_in_a_hierarchy_is_a_class() -> None:
    tree = Hierarchy.from_edges([("root", "all"), ("all", -1), ("all", 0), ("root", 1)])
    found = targets([-1, 0, 1, -1], tree)
    assert found.classes == [-1, 0, 1]
    assert not found.unlabelled
    found = targets([-1, 0, 1, None], tree)  # and then None is what marks a row
    assert found.classes == [-1, 0, 1]
    assert found.values.tolist() == [0, 1, 2, -1]


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (
            [-1, 1, 1, -1],
            ValueError,
            r"-1 in y marks a row without a label. The other rows must have at least two classes.*\[1\]",
        ),
        ([-1, -2, 1, 2], ValueError, r"-1 in y marks .* all >= 0, got \[-2, 1, 2\]. Number classes from 0"),
        ([None, -2, -1, 2], ValueError, r"-1 in y .* all >= 0, got \[-2, 2\]"),
        ([-1] * 4, ValueError, "y has no label in any of its 4 rows; leave y out, or give some"),
        ([None] * 4, ValueError, "y has no label in any of its 4 rows"),
        (np.full(4, np.nan), ValueError, "y has no label in any of its 4 rows"),
        ([0.5, np.nan, 1.0, 1.0], TypeError, "y must hold integer or string classes, got float64"),
        ([np.inf, np.nan, 1.0, 1.0], TypeError, "y must hold integer or string classes, got float64"),
        (["a", None, 1, 1], TypeError, "y must hold integers or strings, all of one kind, got int, str"),
        ([0, None, 1], ValueError, "y must have one row for each of the 4 rows of X, got 3"),
    ],
    ids=str,
)
def test_what_cannot_be_told(y: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=rf"Hasher\.fit: {message}"):
        Hasher(**QUICK).fit(blobs(4)[0], y)


def test_negative_classes_without_minus_one_are_classes() -> None:
    assert targets([-3, -2, 5]).classes == [-3, -2, 5]
    assert targets([-2, None, 5]).values.tolist() == [0, -1, 1]


@pytest.mark.parametrize("mark", [None, -1, np.nan])
def test_validation_needs_a_label_for_each_row(mark: Any) -> None:
    X, y = blobs()
    Xv, yv = blobs(60, 3)
    marked = yv.astype(object)
    marked[5] = mark
    with pytest.raises(
        ValueError, match=r"Hasher\.fit: validation y must have a label for each row, got none in row 5"
    ):
        Hasher(**QUICK).fit(X, y, validation=(Xv, marked.tolist()))


# What is found


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_hidden_classes_are_found(seed: int) -> None:
    X, labels, truth = mixed(seed=seed)
    check_found(*found_in(X, labels, seed), labels, truth)


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    X, labels, truth = mixed()
    check_found(*found_in(X, labels), labels, truth)


def test_rows_of_known_classes_alone_give_hardly_a_new_one() -> None:
    X, labels, truth = mixed(per_class=120)
    kept = truth < 4
    found, _ = found_in(X[kept], labels[kept])
    assert (found == truth[kept]).mean() > 0.97


def test_a_few_labels_are_enough() -> None:
    X, _, truth = mixed()
    labels = np.full(len(X), -1)
    for known in range(4):  # one row of each
        labels[np.flatnonzero(truth == known)[0]] = known
    found, nearest = found_in(X, labels)
    np.testing.assert_array_equal(found[labels >= 0], labels[labels >= 0])
    assert len(nearest) >= 1
    assert purity(found, truth) > 0.5  # chance is 0.14


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("known", [1, 2, 3])
def test_few_known_classes_keep_their_rows(known: int, seed: int) -> None:
    """Clusters of their far rows would go on to take the others: one prior for all classes hardly holds few of them."""
    X, labels, truth = mixed(seed=seed)
    found, nearest = found_in(X, np.where(labels < known, labels, -1), seed)
    assert (found[truth < known] == truth[truth < known]).mean() > 0.95
    assert (found[truth >= known] >= known).mean() > 0.95
    assert purity(found, truth) > 0.95
    assert 7 - known <= len(nearest) <= 8 - known


@pytest.mark.parametrize("unlabelled", [1, 2, 4])
def test_fewer_rows_than_a_class_has(unlabelled: int) -> None:
    X, _, truth = mixed()
    for part in (truth < 4, truth == 5):  # rows of known classes, and of a hidden one
        labels = np.where(truth < 4, truth, -1)
        kept = (truth < 4) | (np.cumsum(part) <= unlabelled) & part
        labels[np.flatnonzero(part & kept)[:unlabelled]] = -1
        kept &= (labels >= 0) | part
        found, _ = found_in(X[kept], labels[kept])
        assert (found >= 0).all()
        assert (labels[kept] < 0).sum() == unlabelled


@pytest.mark.parametrize("per_class", [60, 200])
def test_wide_inputs(per_class: int) -> None:
    """Of fewer labelled rows than features nothing may be taken for the shape of classes that is only theirs."""
    X, labels, truth = mixed(per_class)
    noise = 0.2 * np.random.default_rng(1).normal(size=(len(X), 600))
    wide = np.concatenate([X, noise], 1).astype(np.float32)
    state = torch.get_rng_state()
    found, nearest = found_in(wide, labels)
    check_found(found, nearest, labels, truth)
    assert torch.equal(torch.get_rng_state(), state)


def test_large_sets_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pseudo_classes, "SAMPLE", 200)
    monkeypatch.setattr(pseudo_classes, "BLOCK", 64)
    X, labels, truth = mixed(per_class=150)
    check_found(*found_in(X, labels), labels, truth)


def test_equal_rows() -> None:
    found, _ = found_in(np.ones((20, 3), np.float32), np.where(np.arange(20) < 10, np.arange(20) % 2, -1))
    assert (found >= 0).all()


def test_the_seed_decides() -> None:
    X, labels, _ = mixed()
    for found, again in zip(found_in(X, labels, 7), found_in(X, labels, 7), strict=True):
        np.testing.assert_array_equal(found, again)


def test_distances_of_new_classes() -> None:
    known = torch.tensor([[0.0, 0.25, 1.0], [0.25, 0.0, 1.0], [1.0, 1.0, 0.0]])
    grown = with_new_classes(known, torch.tensor([2, 0, 2]))
    assert torch.equal(grown, grown.T)
    assert torch.equal(grown[:3, :3], known)
    assert grown[3].tolist() == [1.0, 1.0, 0.25, 0.0, 1.0, 0.25]  # beside the third class and the other beside it
    assert with_new_classes(torch.zeros(1, 1), torch.tensor([0])).tolist() == [[0.0, 1.0], [1.0, 0.0]]


# What fit does with it


def test_fit_says_what_was_found() -> None:
    X, labels, truth = mixed()
    names = np.array([*NAMES, "hidden"])
    y = [None if label < 0 else str(names[label]) for label in labels]
    hasher = Hasher(**QUICK, hierarchy=hierarchy()).fit(X, y)
    found = hasher.pseudo_classes_
    assert sorted(hasher.classes_) == sorted(NAMES[:4])
    assert set(found.nearest) <= set(NAMES[:4])
    assert len(found.sizes) == len(found.nearest) >= 3
    assert found.labels.shape == (len(X),)
    assert [int((found.labels == 4 + new).sum()) for new in range(len(found.sizes))] == found.sizes
    assert found.known + sum(found.sizes) == (labels < 0).sum()
    own = labels >= 0
    np.testing.assert_array_equal(hasher.classes_[found.labels[own]], names[labels[own]])
    assert repr(found) == (
        f"PseudoClasses({len(found.sizes)} new classes of {sum(found.sizes)} rows; {found.known} rows of known ones)"
    )
    assert Hasher(**QUICK).fit(X, truth).pseudo_classes_ is None


def test_codes_tell_hidden_classes_apart() -> None:
    from fasthash.metrics import mean_average_precision

    X, labels, truth = mixed()
    known, hidden = labels >= 0, np.isin(truth, HIDDEN)

    def score(hasher: Hasher) -> float:
        codes = hasher.encode(X)
        weights = hasher.bit_weights_
        return mean_average_precision(codes[hidden], codes, truth[hidden], truth, bit_weights=weights)

    settings = {**QUICK, "epochs": 15}
    all_rows = score(Hasher(**settings).fit(X, labels))
    assert all_rows > 0.9
    assert all_rows > score(Hasher(**settings).fit(X[known], labels[known])) + 0.05


@pytest.mark.parametrize("settings", [{"supervision": "similarity"}, {"loss": "csq"}, {"preserve": 1.0}, {"kl": 0.0}])
def test_other_settings_take_rows_without_a_label(settings: dict[str, Any]) -> None:
    X, labels, _ = mixed()
    hasher = Hasher(**QUICK, **settings).fit(X, labels, validation=(X[labels >= 0], labels[labels >= 0]))
    assert len(hasher.pseudo_classes_.sizes) >= 3
    assert np.isfinite(hasher.history_.losses).all()


def test_validation_searches_rows_that_have_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    from fasthash.train import validation

    seen = []
    original = validation.hierarchical_precision

    def spy(query: Any, database: Any, query_y: Any, database_y: Any, *rest: Any, **named: Any) -> Any:
        seen.append((len(database), int(database_y.min())))
        return original(query, database, query_y, database_y, *rest, **named)

    monkeypatch.setattr(validation, "hierarchical_precision", spy)
    X, labels, _ = mixed()
    own = labels >= 0
    Hasher(**QUICK).fit(X, labels, validation=(X[own], labels[own]))
    monkeypatch.setattr(validation, "DATABASE", 30)
    Hasher(**QUICK).fit(X, labels, validation=(X[own], labels[own]))
    assert set(seen) == {(own.sum(), 0), (30, 0)}


def test_memory_mapped_features(tmp_path: Path) -> None:
    X, labels, _ = mixed()
    np.save(tmp_path / "X.npy", X)
    mapped = Hasher(**QUICK).fit(np.load(tmp_path / "X.npy", mmap_mode="r"), labels)
    expected = Hasher(**QUICK).fit(X, labels)
    assert same(mapped, expected)
    np.testing.assert_array_equal(mapped.pseudo_classes_.labels, expected.pseudo_classes_.labels)


def test_save_and_load(tmp_path: Path) -> None:
    X, labels, _ = mixed()
    hasher = Hasher(**QUICK).fit(X, labels)
    hasher.save(tmp_path / "model")
    loaded = Hasher.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.encode(X), hasher.encode(X))
    found, wanted = loaded.pseudo_classes_, hasher.pseudo_classes_
    assert (found.nearest, found.sizes, found.known) == (wanted.nearest, wanted.sizes, wanted.known)
    assert found.labels is None
    loaded.save(tmp_path / "again")
    assert Hasher.load(tmp_path / "again").pseudo_classes_ == found
    assert same(loaded.fit(X, labels), hasher)


@pytest.mark.parametrize("item_bits", [None, 0])
def test_an_interrupted_run_goes_on_to_the_same_bits(item_bits: int | None, tmp_path: Path) -> None:
    X, labels, _ = mixed()
    validation = X[labels >= 0], labels[labels >= 0]
    wanted = Hasher(**QUICK, item_bits=item_bits).fit(X, labels, validation=validation)
    hasher = Hasher(**QUICK, item_bits=item_bits, run_dir=tmp_path)
    with stopped_after(2):
        hasher.fit(X, labels, validation=validation)
    hasher.fit(X, labels, validation=validation)
    assert same(hasher, wanted)
    assert hasher.history_ == wanted.history_
    changed = labels.copy()
    changed[np.flatnonzero(labels >= 0)[0]] = -1
    with pytest.raises(ValueError, match=r"holds a run with data\.y "):
        hasher.fit(X, changed, validation=validation)
