"""Labels in every form that people have them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hasher_cases import QUICK, blobs

import fasthash
from fasthash import Hierarchy
from fasthash._labels import label_array
from fasthash.cli.columns import read_labels
from fasthash.cli.parser import UserError
from fasthash.losses.published import LOSSES
from fasthash.targets import class_distances, label_distances
from fasthash.train import Hasher, Objective
from fasthash.train.supervision import read_targets, read_validation

NUMBERS, WORDS = np.array([1, 0, 1, 2]), np.array(["b", "a", "b", "c"])


def forms(plain: np.ndarray) -> dict[str, Any]:
    found: dict[str, Any] = {
        "array": plain,
        "list": plain.tolist(),
        "column": plain[:, None],
        "column of lists": [[value] for value in plain.tolist()],
        "objects": plain.astype(object),
        "column of objects": plain.astype(object)[:, None],
    }
    if plain.dtype.kind == "i":
        found |= {"tensor": torch.from_numpy(plain), "tensor column": torch.from_numpy(plain)[:, None]}
        found |= {dtype: plain.astype(dtype) for dtype in ("int8", "uint8", "uint16", "uint64")}
    try:
        import pandas

        series = pandas.Series(plain.tolist(), index=[9] * len(plain))
        found |= {"Series": series, "categorical": series.astype("category"), "frame": series.to_frame()}
        found |= {"categories": pandas.Categorical(plain), "frame of categories": series.astype("category").to_frame()}
        found["nullable"] = series.astype("Int64" if plain.dtype.kind == "i" else "string")
    except ImportError:
        pass
    try:
        import polars

        found["polars"] = polars.Series(plain.tolist())
        found["polars frame"] = polars.DataFrame({"y": plain.tolist()})
        if plain.dtype.kind == "U":
            found["polars categorical"] = polars.Series(plain.tolist(), dtype=polars.Categorical)
    except ImportError:
        pass
    return found


@pytest.mark.parametrize(
    ("plain", "form"), [(plain, form) for plain in (NUMBERS, WORDS) for form in forms(plain)], ids=str
)
def test_every_form_of_classes(plain: np.ndarray, form: str) -> None:
    got = label_array(forms(plain)[form], "f", "y")
    np.testing.assert_array_equal(got, plain)
    assert got.dtype.kind == plain.dtype.kind


def test_booleans_are_the_classes_0_and_1() -> None:
    assert label_array(np.array([True, False]), "f", "y").tolist() == [1, 0]
    assert label_array(np.array([[True], [False]], dtype=object), "f", "y").tolist() == [1, 0]


def test_two_columns_stay_two(tmp_path: Any) -> None:
    rows = np.array([[1, 0], [1, 1]])
    np.testing.assert_array_equal(label_array(rows, "f", "y"), rows)
    np.testing.assert_array_equal(label_array(rows.astype(object), "f", "y"), rows)
    np.testing.assert_array_equal(label_array(np.array([*rows, None], dtype=object)[:-1], "f", "y"), rows)
    np.save(tmp_path / "y.npy", rows)
    mapped = np.load(tmp_path / "y.npy", mmap_mode="r")
    assert np.shares_memory(label_array(mapped, "f", "y"), mapped)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([1.0, 2.0], TypeError, "f: y must hold integer or string classes, got float64"),
        ([[1.0], [2.0]], TypeError, "f: y must hold integer or string classes, got float64"),
        (np.array(["a", 1], dtype=object), TypeError, "integers or strings, all of one kind, got int, str"),
        (np.array(["a", None], dtype=object), ValueError, "f: y must not have missing values, got None in row 1"),
        (np.array(["a", np.nan], dtype=object), ValueError, "got nan in row 1"),
        (np.zeros((2, 2, 2)), ValueError, r"1-D classes or 2-D multi-hot, got shape \[2, 2, 2\]"),
        (np.array(3), ValueError, r"got shape \[\]"),
        ([[1], [1, 2]], ValueError, "f: y must have rows of one length"),
        (np.array([2**63], dtype=np.uint64), ValueError, "f: y must be below"),
    ],
)
def test_what_is_refused(labels: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        label_array(labels, "f", "y")


def test_numpy_changes_or_drops_nothing_in_silence() -> None:
    """numpy alone makes strings of numbers beside strings, forgets masks, and knows no bfloat16."""
    with pytest.raises(TypeError, match="all of one kind, got int, str"):
        label_array([1, "a"], "f", "y")
    with pytest.raises(ValueError, match="f: y must not have missing values, got nan in row 0"):
        label_array([float("nan"), "a"], "f", "y")
    with pytest.raises(ValueError, match="f: y must not have missing values, got None in row 1"):
        label_array(np.ma.masked_array([1, 2], mask=[False, True]), "f", "y")
    assert label_array(np.ma.masked_array([1, 2]), "f", "y").tolist() == [1, 2]
    assert label_array(torch.eye(2, dtype=torch.bfloat16), "f", "y").tolist() == [[1, 0], [0, 1]]
    assert label_array([], "f", "y").dtype == np.int64
    if hasattr(np.dtypes, "StringDType"):
        assert label_array(np.array(["a", "bcd"], dtype=np.dtypes.StringDType()), "f", "y").tolist() == ["a", "bcd"]


def test_multi_hot_frames_of_several_types_stay_integers() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"cat": [True, False], "dog": [1, 0]})
    got = label_array(frame, "f", "y")
    assert got.dtype == np.int64
    assert got.tolist() == [[1, 1], [0, 0]]
    with pytest.raises(ValueError, match="must not have missing values, got None in row 1"):
        label_array(np.array([[1, 0], [None, 1]], dtype=object), "f", "y")
    with pytest.raises(ValueError, match=r"must not have missing values, got nan in row 2"):
        label_array(pandas.Series([1, 2, None]), "f", "y")


COLUMN_CODES = np.random.default_rng(0).integers(0, 256, (60, 2), dtype=np.uint8)
COLUMN_LABELS = np.random.default_rng(1).integers(0, 2, 60)


@pytest.mark.parametrize("form", list(forms(NUMBERS)), ids=str)
def test_metrics_take_every_form(form: str) -> None:
    """Two classes in one column are two classes, not one label that some rows have."""
    codes, y = COLUMN_CODES, COLUMN_LABELS
    given = forms(y)[form]
    for call in (
        fasthash.metrics.mean_average_precision,
        lambda *parts: fasthash.metrics.precision_within_radius(*parts, 2),
        lambda *parts: fasthash.metrics.ndcg(*parts, 5),
        lambda *parts: fasthash.metrics.average_cumulative_gain(*parts, 5),
        lambda *parts: fasthash.metrics.recall_at(*parts, 5),
        lambda *parts: fasthash.metrics.precision_at(*parts, 5),
        lambda *parts: fasthash.metrics.hierarchical_precision(*parts, 1 - np.eye(2), at=5),
        fasthash.evaluate.evaluate,
    ):
        assert call(codes, codes, given, given) == call(codes, codes, y, y)
        assert call(codes, codes, given, y) == call(codes, codes, y, y)
    scores = [fasthash.evaluate.overlap_at(codes, codes, codes / 255, codes / 255, x, x, 3) for x in (given, y)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("plain", [NUMBERS, WORDS], ids=["numbers", "words"])
def test_targets_take_every_form(plain: np.ndarray) -> None:
    for given in forms(plain).values():
        targets = read_targets(given, 4, None, None)
        assert targets.kind == "labels"
        assert targets.classes == sorted(set(plain.tolist()))
        assert read_targets(given, 4, "labels", None).values.tolist() == targets.values.tolist()
        assert len(read_validation(targets, given, 4, None).classes or []) == 3
        assert class_distances(forms(np.unique(plain))["column"]).shape == (3, 3)
    first, second, third = np.unique(plain).tolist()
    tree = Hierarchy.from_edges([("root", "pair"), ("pair", first), ("pair", second), ("root", third)])
    expected = np.array([[0, 0.5, 1], [0.5, 0, 1], [1, 1, 0]])
    for given in forms(np.unique(plain)).values():
        np.testing.assert_array_equal(tree.distance_matrix(given), expected)
        np.testing.assert_array_equal(class_distances(given, tree).numpy(), expected.astype(np.float32))
        assert len(tree.restrict(given)) == 5


def test_what_target_says_of_one_column() -> None:
    y = np.array([[1], [0], [1]])
    assert read_targets(y, 3, None, None).kind == "labels"
    assert read_targets(y, 3, "multilabel", None).values.shape == (3, 1)
    assert read_targets(y, 3, "embedding", None).values.shape == (3, 1)
    assert read_targets(y * 0.5, 3, "embedding", None).kind == "embedding"
    assert read_targets(torch.from_numpy(y), 3, "multilabel", None).values.shape == (3, 1)
    for column in (y * 0.5, torch.from_numpy(y * 0.5), (y * 0.5).astype(object), [[0.5], [0.0], [0.5]]):
        with pytest.raises(ValueError, match=r'y is one column of float.*\(.astype\(int\)\).*set target="embedding"'):
            read_targets(column, 3, None, None)
    with pytest.raises(TypeError, match="y must hold integer or string classes, got float64"):
        read_targets(y * 0.5, 3, "labels", None)


def test_batches_with_a_column_of_labels() -> None:
    """What a DataLoader gives of a data frame's column: the same losses."""
    y, u = torch.arange(8) % 3, torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(label_distances(y[:, None]), label_distances(y))
    assert torch.equal(label_distances(y[:, None].numpy().astype(object)), label_distances(y))
    for name, loss in LOSSES.items():
        sizes = {"bits": 6, "classes": 3, "levels": torch.tensor([[0, 1, 2], [0, 0, 1]])}
        wanted = inspect.signature(loss.__init__).parameters
        torch.manual_seed(0)
        module = loss(**{key: value for key, value in sizes.items() if key in wanted}).eval()
        try:
            expected = module(u, y)
        except ValueError:  # a loss of embeddings
            assert name in ("sdc", "bihalf")
            continue
        assert torch.equal(module(u, y[:, None]), expected), name
    objective = Objective(6, classes=3, distance=1 - torch.eye(3), kl=0)
    assert torch.equal(objective(u.sigmoid(), y[:, None]), objective(u.sigmoid(), y))


def test_histogram_takes_a_column() -> None:
    weights = np.random.default_rng(2).random((3, 2))
    expected = fasthash.hamming_histogram(
        COLUMN_CODES[:3], COLUMN_CODES, database_labels=COLUMN_LABELS, class_weights=weights
    )[1]
    for given in forms(COLUMN_LABELS).values():
        got = fasthash.hamming_histogram(COLUMN_CODES[:3], COLUMN_CODES, database_labels=given, class_weights=weights)
        np.testing.assert_array_equal(got[1], expected)
    for wrong, kind in ((COLUMN_LABELS.astype(str), "U"), (torch.zeros(60), "float32")):
        with pytest.raises(TypeError, match=f"hamming_histogram: database_labels must be integers, got .*{kind}"):
            fasthash.hamming_histogram(COLUMN_CODES[:3], COLUMN_CODES, database_labels=wrong, class_weights=weights)


@pytest.mark.usefixtures("one_thread")
def test_hasher_learns_from_a_column() -> None:
    X, y = blobs()
    expected = Hasher(**QUICK).fit(X, y % 2)
    column = Hasher(**QUICK).fit(X, (y % 2)[:, None], validation=(X, (y % 2)[:, None]))
    assert column.classes_.tolist() == [0, 1]
    np.testing.assert_array_equal(column.classes_, expected.classes_)
    np.testing.assert_array_equal(Hasher(**QUICK).fit(X, (y % 2)[:, None]).encode(X), expected.encode(X))


def test_command_line_reads_a_column(tmp_path: Path) -> None:
    path = tmp_path / "labels.npy"
    for values in (NUMBERS, WORDS, NUMBERS.astype(bool)):
        np.save(path, values[:, None])
        got = read_labels(str(path), 4, "items")
        np.testing.assert_array_equal(got, values.astype(int) if values.dtype == bool else values)
    for values, kind in ((np.zeros((4, 2), int), r"int64 of shape \(4, 2\)"), (np.zeros((4, 1)), "float64")):
        np.save(path, values)
        with pytest.raises(UserError, match=f"labels must be integers or text .N., got {kind}"):
            read_labels(str(path), 4, "items")
