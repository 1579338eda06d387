"""What counts as an array: columns of data frames, lists of rows, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fasthash import Hasher, hamming_range, hamming_topk, pack_bits
from fasthash._arrays import to_tensor
from fasthash.baselines import lsh

ROWS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def columns() -> dict[str, Any]:
    found: dict[str, Any] = {
        "lists": ROWS.tolist(),
        "arrays": list(ROWS),
        "object array": np.array([*ROWS, None], dtype=object)[:-1],
    }
    try:
        import pandas

        found["pandas arrays"] = pandas.Series(list(ROWS))
        found["pandas lists"] = pandas.Series(ROWS.tolist(), index=list("fedcba"))
        found["pandas frame"] = pandas.DataFrame(ROWS)
        found["pandas frame of one column"] = pandas.DataFrame({"embedding": list(ROWS)})
    except ImportError:
        pass
    try:
        import polars

        found["polars List"] = polars.Series("x", ROWS.tolist())
        found["polars Array"] = polars.Series("x", ROWS.tolist(), dtype=polars.Array(polars.Float32, 4))
        found["polars frame of one column"] = polars.DataFrame({"embedding": ROWS.tolist()})
    except ImportError:
        pass
    try:
        import pyarrow

        fixed = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(ROWS.reshape(-1)), 4)
        found["arrow FixedSizeList"] = fixed
        found["arrow List"] = pyarrow.array(ROWS.tolist())
        found["arrow table of one column"] = pyarrow.table({"embedding": fixed})
        found["arrow chunked"] = pyarrow.chunked_array([fixed[:2], fixed[2:]])
    except ImportError:
        pass
    return found


@pytest.mark.parametrize("kind", columns())
def test_a_column_of_rows_is_taken(kind: str) -> None:
    column = columns()[kind]
    np.testing.assert_allclose(to_tensor(column).float().numpy(), ROWS, rtol=1e-6)
    np.testing.assert_array_equal(pack_bits(column, 0), pack_bits(ROWS, 0))


@pytest.mark.parametrize("kind", columns())
def test_a_column_of_embeddings_can_be_learned_from(kind: str) -> None:
    y = [0, 1, 0, 1, 0, 1]
    expected = Hasher(8, epochs=1, progress=False).fit(ROWS, y).encode(ROWS)
    assert Hasher(8, epochs=1, progress=False).fit(columns()[kind], y).encode(columns()[kind]).shape == expected.shape


@pytest.mark.parametrize("model", [Hasher(8, epochs=1, progress=False).fit(ROWS, [0, 1] * 3), lsh(ROWS, 8)], ids=repr)
def test_one_row_to_search_for_may_be_one_dimensional(model: Any) -> None:
    for method in (model.encode, model.queries):
        for row in (ROWS[2], ROWS[2].tolist(), torch.from_numpy(ROWS[2])):
            np.testing.assert_array_equal(method(row), method(ROWS[2:3]))
        with pytest.raises(ValueError, match=rf"\w+\.{method.__name__}: X must have 4 features, got 3"):
            method(ROWS[2, :3])


def test_numbers_as_objects_are_numbers() -> None:
    assert to_tensor(np.array([3, 1, 2], dtype=object)).tolist() == [3, 1, 2]


@pytest.mark.parametrize(
    ("column", "error", "message"),
    [
        ([np.zeros(3), np.zeros(4)], ValueError, r"f: x must have rows of one length"),
        (np.array([np.zeros(3), None, 1], dtype=object), ValueError, r"row 0 has shape \[3\], row 1 None"),
        (np.array([1, None], dtype=object), ValueError, "f: x must not have missing values, got None in row 1"),
        (np.array(["a", "b"], dtype=object), TypeError, "f: x must be a numeric array or tensor"),
        (["a", "b"], TypeError, "f: x must be a numeric array or tensor"),
    ],
)
def test_what_is_no_array_is_refused(column: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        to_tensor(column, "f", "x")


def test_one_query_may_have_one_dimension() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (50, 8), dtype=np.uint8)
    np.testing.assert_array_equal(hamming_topk(codes[7], codes, 5).ids, hamming_topk(codes[7:8], codes, 5).ids)
    np.testing.assert_array_equal(hamming_range(codes[7], codes, 20).ids, hamming_range(codes[7:8], codes, 20).ids)
    assert hamming_topk(torch.from_numpy(codes[7]), torch.from_numpy(codes), 5).ids.shape == (1, 5)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "list"])
@pytest.mark.parametrize(
    "search", [lambda q, d, f: hamming_topk(q, d, 1, filter=f), lambda q, d, f: hamming_range(q, d, 64, filter=f)]
)
def test_zeros_and_ones_are_no_filter(dtype: str, search: Any) -> None:
    codes = np.random.default_rng(0).integers(0, 256, (5, 8), dtype=np.uint8)

    def as_filter(values: list[int]) -> Any:
        return values if dtype == "list" else np.array(values, dtype)

    with pytest.raises(TypeError, match=r"holds only 0 and 1, 2 and 3 times. For a mask pass .*astype"):
        search(codes, codes, as_filter([1, 0, 1, 0, 1]))
    with pytest.raises(TypeError, match="holds only 0 and 1, 2 and 0 times"):
        search(codes, codes, as_filter([0, 0]))
    for positions in ([0, 1], [1], [0], [2, 2, 1], [0, 1, 2, 0]):  # repeated positions stay legal
        expected = search(codes, codes, np.isin(np.arange(5), positions))
        np.testing.assert_array_equal(search(codes, codes, as_filter(positions)).ids, expected.ids)
