"""Bags of words as they are distributed: the LIBSVM format (news20, RCV1 ...), and that of UCI's "Bag of Words"."""

from __future__ import annotations

import bz2
import gzip
from os import PathLike
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthash.datasets.files import existing

HEADER = 3  # lines of a docword file before its entries: documents, words, entries


class BagsOfWords(NamedTuple):
    """Documents as bags of words, for `fasthash.TextHasher`; row i of each belongs together."""

    X: Any  # [N, V], a scipy.sparse CSR matrix: counts, or whatever weights the file holds
    labels: NDArray[Any] | None  # [N] classes int64, or [N, L] multi-hot uint8; None: the format has none
    classes: list[int] | None  # the names of the columns of multi-hot labels
    words: list[str] | None  # of the columns of X, where a file names them


def svmlight_bags(path: str | PathLike[str], *, words: int | None = None) -> BagsOfWords:
    """A file of the LIBSVM (SVMlight) format: "label word:value word:value ..." on each line; .gz and .bz2 too.

    Several labels, "3,7 ...", become multi-hot labels; `classes` says which column is which. Words are numbered from 1,
    or from 0 where the file has a 0. words: V, for a test file that lacks the last words of the training file, say
    `svmlight_bags(test, words=train.X.shape[1])`. Other values than counts, TF-IDF say, stay what they are.

    The files of https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/ have this format. Needs scikit-learn. Raises
    FileNotFoundError, and ValueError, naming the file, for another format, labels that are not whole numbers, and words
    beyond `words`.
    """
    file = existing(Path(path), "svmlight_bags")
    try:
        from sklearn.datasets import load_svmlight_file
    except ImportError:
        raise ImportError(
            "svmlight_bags: needs scikit-learn, which is not installed: pip install 'fasthash[text]'"
        ) from None
    try:
        several = _has_several_labels(file)
        X, y = load_svmlight_file(str(file), n_features=words, multilabel=several)
        if several:
            classes = _whole_numbers(sorted({label for row in y for label in row})).tolist()
            labels = np.array([np.isin(classes, row) for row in y], dtype=np.uint8).reshape(len(y), len(classes))
            return BagsOfWords(X, labels, classes, None)
        return BagsOfWords(X, _whole_numbers(y), None, None)
    except (ValueError, OSError) as error:
        raise ValueError(f"svmlight_bags: {path} is not a file of the LIBSVM format: {error}") from None


def uci_bags(docword: str | PathLike[str], vocab: str | PathLike[str] | None = None) -> BagsOfWords:
    """A docword.NAME.txt of UCI's "Bag of Words" data set, and its vocab.NAME.txt; .gz too. It has no labels.

    docword: three lines, N, V and the number of entries, then an entry on each line: "document word count", both
    numbered from 1. vocab: a word on each line. The files of https://archive.ics.uci.edu/dataset/164/bag+of+words have
    this format. Needs scipy. Raises FileNotFoundError, and ValueError, naming the file, for others.
    """
    try:
        from scipy.sparse import csr_matrix
    except ImportError:
        raise ImportError("uci_bags: needs scipy, which is not installed: pip install 'fasthash[text]'") from None
    path = existing(Path(docword), "uci_bags")
    with _opened(path) as file:
        try:
            rows, columns, entries = (int(file.readline()) for _ in range(HEADER))
            table = np.loadtxt(file, dtype=np.int64, ndmin=2) if entries else np.empty((0, 3), dtype=np.int64)
            if table.shape[1] != 3:
                raise ValueError(f"an entry must have 3 numbers, got {table.shape[1]}")
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"uci_bags: {path} is not a docword file: {error}") from None
    if len(table) != entries:
        raise ValueError(f"uci_bags: {path} must have {entries} entries, as its third line says, got {len(table)}")
    for name, column, limit in (("document", 0, rows), ("word", 1, columns)):
        values = table[:, column]
        if len(values) and not 1 <= values.min() <= values.max() <= limit:
            wrong = values[(values < 1) | (values > limit)][0]
            raise ValueError(f"uci_bags: {path}: a {name} must be between 1 and {limit}, got {wrong}")
    words = None
    if vocab is not None:
        with _opened(existing(Path(vocab), "uci_bags")) as file:
            words = file.read().split()
        if len(words) != columns:
            raise ValueError(f"uci_bags: {vocab} must have {columns} words, as {path.name} says, got {len(words)}")
    X = csr_matrix((table[:, 2], (table[:, 0] - 1, table[:, 1] - 1)), shape=(rows, columns))
    return BagsOfWords(X, None, None, words)


def _whole_numbers(labels: Any) -> NDArray[np.int64]:
    values = np.asarray(labels, dtype=np.float64)
    if (values != np.round(values)).any():
        raise ValueError(f"labels must be whole numbers, got {values[values != np.round(values)][0]}")
    return values.astype(np.int64)


def _opened(path: Path) -> IO[str]:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


def _has_several_labels(path: Path) -> bool:
    """Whether a line has several labels, or none: one label a line is what is left."""
    opened: Any = {".gz": gzip.open, ".bz2": bz2.open}.get(path.suffix, open)
    with opened(path, "rb") as file:
        for line in file:
            first = line.split(b"#")[0][:256]
            if first.strip() and (b"," in first.split()[0] or b":" in first.split()[0] or first[:1].isspace()):
                return True
    return False
