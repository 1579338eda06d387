"""Labels in every form that people have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fasthash._labels import label_array

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

        series = pandas.Series(plain.tolist(), index=[9, 9, 3, 1])
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
