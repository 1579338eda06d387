"""Planetoid citation graphs (Cora, Citeseer, Pubmed) as distributed, read without running what the files hold."""

from __future__ import annotations

import pickle
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthash.datasets.files import existing

# All that the files name: arrays of numpy, sparse matrices of scipy (read as plain fields), a dict with a default list.
ARRAYS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}
SPARSE = {("scipy.sparse.csr", "csr_matrix"), ("scipy.sparse._csr", "csr_matrix")}
VALIDATED = 500  # rows after the labelled ones, in the split that all papers use


class Planetoid(NamedTuple):
    """A citation graph; row i of X and y belongs to node i. train, validation and test are the Planetoid split."""

    X: NDArray[np.float32]  # [N, F], words; a row of zeros where the files leave a test node out
    y: NDArray[np.int64]  # [N], -1 without a class
    edges: NDArray[np.int64]  # [E, 2], each once, the lower node first, none to itself
    train: NDArray[np.int64]  # nodes whose labels are known
    validation: NDArray[np.int64]  # the next 500, fewer where there are fewer
    test: NDArray[np.int64]


def planetoid(folder: str | PathLike[str], name: str) -> Planetoid:
    """Reads ind.NAME.x, .y, .tx, .ty, .allx, .ally, .graph and .test.index of `folder`: name "cora", say.

    All but the last are pickles: arrays, sparse matrices, numbers and containers are read from them, and a file that
    asks for anything else is refused. Nothing is called that a file names. Raises FileNotFoundError, naming what is
    missing, and ValueError for a file that is not what it should be.

    The format is that of Yang, Cohen, Salakhutdinov, "Revisiting semi-supervised learning with graph embeddings",
    ICML 2016. x are the labelled nodes, the first of allx; test.index says where the rows of tx belong.
    """
    paths = {
        part: existing(Path(folder) / f"ind.{name}.{part}", "planetoid")
        for part in ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
    }
    read = {part: _read(path) for part, path in paths.items() if part != "test.index"}
    try:
        parts = {part: _dense(read[part]) for part in ("x", "tx", "allx", "y", "ty", "ally")}
        place = np.array([int(line) for line in paths["test.index"].read_text().split()], dtype=np.int64)
        sources, targets = _neighbors(read["graph"])
        return _assembled(parts, place, sources, targets)
    except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        raise ValueError(f"planetoid: the files ind.{name}.* of {folder} do not fit together: {error}") from None


def _assembled(
    parts: dict[str, NDArray[Any]], place: NDArray[np.int64], sources: list[int], targets: list[int]
) -> Planetoid:
    for rows, labels in (("x", "y"), ("tx", "ty"), ("allx", "ally")):
        if parts[rows].ndim != 2 or parts[labels].ndim != 2 or len(parts[rows]) != len(parts[labels]):
            shapes = f"{rows} has shape {list(parts[rows].shape)}, and {labels} {list(parts[labels].shape)}"
            raise ValueError(f"{shapes}; they must be [rows, columns]")
    before, known = len(parts["allx"]), len(parts["x"])
    if len(place) != len(parts["tx"]) or len(np.unique(place)) != len(place) or known > before:
        raise ValueError(
            f"{len(place)} numbers of test nodes for {len(parts['tx'])} rows, {known} of {before} labelled"
        )
    if len(place) and place.min() < before:
        raise ValueError(f"test nodes must be {before} or higher, got {place.min()}")
    N = max(before, int(place.max(initial=-1)) + 1)
    X = np.zeros((N, parts["allx"].shape[1]), dtype=np.float32)
    hot = np.zeros((N, parts["ally"].shape[1]))
    X[:before], X[place], hot[:before], hot[place] = parts["allx"], parts["tx"], parts["ally"], parts["ty"]
    pairs = np.sort(np.array([sources, targets], dtype=np.int64).T.reshape(-1, 2), axis=1)
    if len(pairs) and (pairs.min() < 0 or pairs.max() >= N):
        raise ValueError(f"the graph must name nodes between 0 and {N - 1}, got {pairs.min()} to {pairs.max()}")
    y = np.where(hot.any(1), hot.argmax(1), -1)
    edges = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
    validation = np.arange(known, min(known + VALIDATED, before))
    return Planetoid(X, y, edges, np.arange(known), validation, np.sort(place))


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _PlainData(file, encoding="latin1").load()
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(f"planetoid: {path} is damaged or not a file of this data set: {error}") from None


def _dense(value: Any) -> NDArray[Any]:
    if not isinstance(value, _Fields):
        return np.asarray(value)
    fields = value.fields
    rows, columns = (int(size) for size in fields["_shape"])
    starts, indices, data = (np.asarray(fields[name]) for name in ("indptr", "indices", "data"))
    counts = np.diff(starts)
    if len(starts) != rows + 1 or (counts < 0).any() or not len(indices) == len(data) == starts[-1] or starts[0]:
        raise ValueError(f"a sparse matrix of {rows} rows has {len(starts)} starts and {len(data)} values")
    if len(indices) and (indices.min() < 0 or indices.max() >= columns):
        raise ValueError(f"columns must be between 0 and {columns - 1}, got {indices.min()} to {indices.max()}")
    found = np.zeros((rows, columns), dtype=np.float32)
    np.add.at(found, (np.repeat(np.arange(rows), counts), indices), data)
    return found


def _neighbors(graph: Any) -> tuple[list[int], list[int]]:
    sources = [int(node) for node, others in graph.items() for _ in others]
    return sources, [int(other) for others in graph.values() for other in others]


class _Fields:
    """The fields of a sparse matrix, and nothing that computes."""

    fields: dict[str, Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.fields = {name.decode("latin1") if isinstance(name, bytes) else name: v for name, v in state.items()}


class _Graph(dict[Any, Any]):
    """A dict; what it was told to make of missing nodes is left out."""

    def __init__(self, *ignored: Any) -> None:
        super().__init__()


class _PlainData(pickle.Unpickler):
    """Reads containers, strings, numbers, arrays and sparse matrices. What a pickle could call otherwise is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in SPARSE:
            return _Fields
        if (module, name) == ("collections", "defaultdict"):
            return _Graph
        if (module, name) in (("__builtin__", "list"), ("builtins", "list")):
            return list
        if module in ("copy_reg", "copyreg") and name == "_reconstructor":
            return _reconstructed
        if (module, name) in (("__builtin__", "object"), ("builtins", "object")):
            return object
        if (module, name) not in ARRAYS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        if name == "_reconstruct":  # where it is depends on numpy's version
            return np.zeros(0).__reduce__()[0]
        return super().find_class(module, name)


def _reconstructed(kind: Any, base: Any, state: Any) -> Any:
    """An empty object of one of the classes here, as old pickles make them."""
    if kind is not _Fields:
        raise pickle.UnpicklingError("it asks for an object of another class")
    return _Fields()
