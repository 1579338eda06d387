"""Bags of words: rows of word counts or weights that stay sparse, and become a tensor a batch at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasthash._arrays import dtype_name

LEAST = 2  # texts that a word must be in, to count as one


class WordBags:
    """Bags [N, V] as compressed rows: an index of rows gives a batch, a sparse float32 tensor [B, V] on the CPU.

    starts int64 [N + 1], words int64 [Z] (ascending in each row), values float32 [Z]: those of a CSR matrix.

    >>> bags = read_bags([[0, 2, 1], [0, 0, 0]], "TextHasher.fit", "X")
    >>> bags[torch.tensor([1, 0])].to_dense()
    tensor([[0., 0., 0.],
            [0., 2., 1.]])
    """

    device = torch.device("cpu")

    def __init__(self, starts: Tensor, words: Tensor, values: Tensor, vocabulary: int) -> None:
        self.starts, self.words, self.values, self.vocabulary = starts, words, values, vocabulary

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        index = torch.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows
        first = self.starts[index]
        lengths = self.starts[index + 1] - first
        before = lengths.cumsum(0) - lengths
        row = torch.repeat_interleave(torch.arange(len(index)), lengths)
        places = (first - before)[row] + torch.arange(len(row))
        indices, size = torch.stack([row, self.words[places]]), (len(index), self.vocabulary)
        return torch.sparse_coo_tensor(indices, self.values[places], size, is_coalesced=True, check_invariants=False)

    @property
    def counts(self) -> bool:
        """Whether all values are whole numbers."""
        return bool((self.values == self.values.round()).all())

    def idf(self) -> Tensor:
        """log((1 + N) / (1 + df)) + 1 of each word, float32 [V]; df: rows that have it."""
        df = torch.bincount(self.words, minlength=self.vocabulary).double()
        return (((1 + len(self)) / (1 + df)).log() + 1).float()


def read_bags(X: Any, function: str, name: str) -> WordBags:
    """X [N, V] of numbers >= 0, a scipy.sparse matrix or an array; raises TypeError and ValueError for others."""
    starts, words, given, shape = _of_sparse(X, function, name) if hasattr(X, "tocsr") else _of_array(X, function, name)
    with np.errstate(over="ignore"):
        values = given.astype(np.float32)
    wrong = ~(np.isfinite(values) & (given > 0))
    if wrong.any():
        place = int(wrong.argmax())
        row = int(np.searchsorted(starts, place, side="right")) - 1
        raise ValueError(f"{function}: {name} must hold finite numbers >= 0, got {given[place]} in row {row}")
    first, word = (torch.from_numpy(part.astype(np.int64)) for part in (starts, words))
    return WordBags(first, word, torch.from_numpy(values), shape[1])


Parts = tuple[NDArray[Any], NDArray[Any], NDArray[Any], tuple[int, ...]]  # starts, words, values but 0, and the shape


def _of_sparse(X: Any, function: str, name: str) -> Parts:
    """A scipy.sparse matrix, unchanged. scipy is not imported here: whoever passes such a matrix has imported it."""
    _check_shape(X.shape, function, name)
    rows = X.tocsr()
    if np.dtype(rows.dtype).kind not in "biuf":
        raise TypeError(f"{function}: {name} must hold real numbers, got {dtype_name(rows)}")
    if not rows.has_canonical_format or not rows.data.all():
        rows = rows.copy()
        rows.sum_duplicates()
        rows.eliminate_zeros()
    return rows.indptr, rows.indices, rows.data, rows.shape


def _of_array(X: Any, function: str, name: str) -> Parts:
    values = X.numpy(force=True) if isinstance(X, Tensor) else np.asarray(X)
    if values.dtype.kind not in "biuf":
        got = f"{type(X).__name__} of {dtype_name(values)}"
        raise TypeError(f"{function}: {name} must be texts, or a matrix of numbers, got {got}")
    _check_shape(values.shape, function, name)
    row, words = values.nonzero()
    return np.searchsorted(row, np.arange(len(values) + 1)), words, values[row, words], values.shape


def _check_shape(shape: tuple[int, ...], function: str, name: str) -> None:
    if len(shape) != 2 or shape[1] < 1:
        raise ValueError(f"{function}: {name} must have shape [N, V] with V >= 1, got {tuple(shape)}")


def texts_of(X: Any, function: str, name: str) -> list[str] | None:
    """X as a list of texts; None where it holds none, as a matrix does. Raises TypeError for texts beside others."""
    if isinstance(X, (str, bytes)):
        raise TypeError(f"{function}: {name} must be a list of texts or a matrix, got one {type(X).__name__}")
    if hasattr(X, "tocsr") or isinstance(X, Tensor) or not isinstance(X, Iterable) or getattr(X, "ndim", 1) != 1:
        return None
    rows = list(X)
    texts = [isinstance(row, str) for row in rows]
    if not any(texts):
        return None
    if not all(texts):
        row = texts.index(False)
        raise TypeError(f"{function}: {name} must hold texts alone, got {type(rows[row]).__name__} in row {row}")
    return rows


def vocabulary(texts: list[str], most: int, function: str) -> list[str]:
    """The words that two texts or more have, the `most` commonest, in order of the alphabet.

    Words are those of scikit-learn's CountVectorizer: lower case, two letters or more. Raises ImportError without
    scikit-learn, ValueError where there are none.
    """
    try:
        found = _vectorizer(function)(min_df=LEAST, max_features=most).fit(texts)
    except ValueError:  # "empty vocabulary", or "after pruning, no terms remain"
        raise ValueError(
            f"{function}: X must have a word that {LEAST} texts or more share, got none in {len(texts)} texts"
        ) from None
    words: list[str] = found.get_feature_names_out().tolist()
    return words


def counted(texts: list[str], words: list[str], function: str) -> Any:
    """Counts [N, V] of the words in the texts, a scipy.sparse matrix; others are left out."""
    vectorizer = _vectorizer(function)(vocabulary=words, dtype=np.float32)
    return vectorizer.transform(texts)


def _vectorizer(function: str) -> Any:
    try:
        from sklearn.feature_extraction.text import CountVectorizer
    except ImportError:
        raise ImportError(
            f"{function}: texts need scikit-learn, which is not installed: pip install 'fasthash[text]'; "
            "a matrix of word counts needs nothing"
        ) from None
    return CountVectorizer
