"""The loader of Planetoid graphs: files as they are distributed, made here; damaged and hostile ones."""

from __future__ import annotations

import io
import os
import pickle
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasthash.datasets import planetoid

sparse = pytest.importorskip("scipy.sparse")

PLACES = [9, 6, 8]  # of the test nodes among 10; node 7 is in no file


def files() -> dict[str, Any]:
    """Contents of the files of a graph of 10 nodes: 2 labelled, 6 in allx, 3 test nodes."""
    rng = np.random.default_rng(0)
    words = (rng.random((9, 5)) < 0.5).astype(np.float32)
    hot = np.eye(3, dtype=np.int32)[[0, 2, 1, 1, 0, 2, 2, 1, 0]]
    graph: defaultdict[int, list[int]] = defaultdict(list)
    graph.update({0: [1, 2, 2], 1: [0], 2: [0, 2], 6: [9], 8: [0], 9: [6]})
    every, test = sparse.csr_matrix(words[:6]), sparse.csr_matrix(words[6:])
    return {
        "x": every[:2],
        "allx": every,
        "tx": test,
        "y": hot[:2],
        "ally": hot[:6],
        "ty": hot[6:],
        "graph": graph,
    }


def write(folder: Path, content: dict[str, Any], protocol: int = 2) -> None:
    for part, value in content.items():
        (folder / f"ind.small.{part}").write_bytes(pickle.dumps(value, protocol=protocol))
    (folder / "ind.small.test.index").write_text("\n".join(map(str, PLACES)) + "\n")


def as_python_2(data: bytes) -> bytes:
    """The names that scipy and Python had when the files were made."""
    for new, old in (
        (b"scipy.sparse._csr\n", b"scipy.sparse.csr\n"),
        (b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"),
        (b"builtins\n", b"__builtin__\n"),
    ):
        data = data.replace(new, old)
    return data


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_graph_is_read_as_it_was_written(tmp_path: Path, protocol: int) -> None:
    content = files()
    write(tmp_path, content, protocol)
    for part in content:
        path = tmp_path / f"ind.small.{part}"
        path.write_bytes(as_python_2(path.read_bytes()) if protocol <= 2 else path.read_bytes())
    data = planetoid(tmp_path, "small")
    assert data.X.dtype == np.float32
    assert data.y.dtype == data.edges.dtype == np.int64
    np.testing.assert_array_equal(data.X[:6], content["allx"].toarray())
    np.testing.assert_array_equal(data.X[PLACES], content["tx"].toarray())
    assert not data.X[7].any()
    assert data.y.tolist() == [0, 2, 1, 1, 0, 2, 1, -1, 0, 2]
    assert data.edges.tolist() == [[0, 1], [0, 2], [0, 8], [6, 9]]  # each once, without the self-loop
    assert data.train.tolist() == [0, 1]
    assert data.validation.tolist() == [2, 3, 4, 5]
    assert data.test.tolist() == [6, 8, 9]


def test_nothing_of_scipy_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, files())
    for name in [name for name in sys.modules if name.partition(".")[0] == "scipy"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert planetoid(tmp_path, "small").X.shape == (10, 5)


class Hostile:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("part", ["x", "tx", "allx", "y", "ty", "ally", "graph"])
def test_a_file_that_asks_for_more_is_refused(tmp_path: Path, part: str) -> None:
    trap = tmp_path / "trap"
    write(tmp_path, files() | {part: Hostile(os.mkdir, str(trap))})
    with pytest.raises(
        ValueError, match=rf"planetoid: .*ind\.small\.{part} is damaged or not .*: it asks for posix.mkdir"
    ):
        planetoid(tmp_path, "small")
    assert not trap.exists()


@pytest.mark.parametrize("function", [eval, getattr, print, pickle.loads, io.open])
def test_builtins_are_refused(tmp_path: Path, function: Any) -> None:
    write(tmp_path, files() | {"graph": Hostile(function, "1")})
    with pytest.raises(ValueError, match="it asks for"):
        planetoid(tmp_path, "small")


def broken_starts() -> Any:
    matrix = files()["x"].copy()
    matrix.indptr = matrix.indptr + 1
    return matrix


def broken_columns() -> Any:
    matrix = files()["x"].copy()
    matrix.indices = matrix.indices + 90
    return matrix


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": 3}, r"x has shape \[\], and y \[2, 3\]; they must be \[rows, columns\]"),
        ({"ally": np.eye(3)}, r"allx has shape \[6, 5\], and ally \[3, 3\]"),
        ({"tx": np.ones((2, 5)), "ty": np.ones((2, 3))}, "3 numbers of test nodes for 2 rows"),
        ({"graph": {0: [44]}}, "the graph must name nodes between 0 and 9, got 0 to 44"),
        ({"graph": [1, 2]}, "has no attribute"),
        ({"x": broken_starts()}, "a sparse matrix of 2 rows"),
        ({"x": broken_columns()}, "columns must be between 0 and 4, got"),
    ],
)
def test_files_that_do_not_fit_together(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write(tmp_path, files() | change)
    with pytest.raises(
        ValueError, match=rf"^planetoid: the files ind\.small\.\* of .* do not fit together: .*{message}"
    ):
        planetoid(tmp_path, "small")


def test_missing_and_cut_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"planetoid: .*ind\.small\.x does not exist"):
        planetoid(tmp_path, "small")
    write(tmp_path, files())
    path = tmp_path / "ind.small.allx"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"planetoid: .*ind\.small\.allx is damaged or not a file of this data set"):
        planetoid(tmp_path, "small")
