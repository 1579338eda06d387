"""EmbeddingIndex: embeddings and keys in, answers out; a thin layer over HammingIndex."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fasthash._arguments import MOST, choice, memory_for, whole
from fasthash.embeddings import encoders
from fasthash.embeddings.encoders import FIT_ROWS, ROWS, Encoder, block_of, checked_rows, encoder_rows, stored_rows
from fasthash.embeddings.scores import EmbeddingResult, best, candidates, told
from fasthash.embeddings.sources import coded, first_rows, open_rows
from fasthash.index import HammingIndex
from fasthash.index.errors import IndexFolderError
from fasthash.index.exchange.build import build
from fasthash.index.exchange.sources import Block
from fasthash.index.groups import groups_of
from fasthash.index.split import frozen
from fasthash.index.store.encoder_file import NewEncoder
from fasthash.index.store.manifest import METRICS, Embedding
from fasthash.index.store.reader import encoder_of
from fasthash.index.vectors import KINDS, Vectors, joined_vectors
from fasthash.train import Hasher


class EmbeddingIndex:
    """Embeddings with ids or keys. A search finds them by their codes and orders them by stored rows.

    It encodes rows, and keeps the codes in a `HammingIndex` (`codes`) and the encoder beside them. A search takes the
    oversample x k nearest codes. It orders these by `metric`: by the rows that `refine` stores, or by estimates from
    the codes if no rows are stored. Searches may run in any number of threads while one changes the index.

    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(1000, 16)).astype(np.float32)
    >>> index = EmbeddingIndex("rabitq", refine="int8")
    >>> _ = index.add(X, keys=[f"item {number}" for number in range(1000)])
    >>> found = index.search(X[:2], k=1)
    >>> found.keys.tolist(), found.scores.round(2).tolist()
    ([['item 0'], ['item 1']], [[1.0], [1.0]])
    """

    def __init__(self, encoder: Any, *, refine: str | None = None, metric: str = "cosine", bits: int | None = None):
        """An empty index in memory.

        encoder: a fitted Hasher, LinearCodes or GridCodes; or a name, "itq", "lsh", "pca_sign", "osq", "rabitq" or
        "turboquant": the first `add` then fits the encoder on its first 50,000 rows. bits: of a code, for a name; None:
        one for each feature, for the first three names 256 at most. The last three names take 1 to 4 times the number
        of features.

        refine: what is stored of each row to order candidates. "float32": the row. "float16": half the bytes; each
        value is off by at most 1 / 2,048 of itself. "int8": a quarter; off by at most 1 / 254 of the row's largest
        value. None: nothing.

        metric: what a score is. With "cosine" and "dot" larger is nearer; "l2" is the Euclidean distance. For "cosine"
        rows are divided by their lengths before they are stored, and before an encoder given by name is fitted. Codes
        hold directions, not lengths: if rows have very different lengths, give a larger `oversample` for "dot" and
        "l2". Raises ValueError or TypeError. The codes of a Hasher cannot be decoded to rows, so a Hasher without
        `refine` takes only "cosine".
        """
        function = "EmbeddingIndex"
        encoders.check_encoder(encoder, bits, function)
        if refine is not None:
            choice(refine, function, "refine", KINDS)
        choice(metric, function, "metric", METRICS)
        if isinstance(encoder, Hasher) and refine is None and metric != "cosine":
            raise ValueError(
                f"{function}: metric {metric!r} with a Hasher needs refine, because its codes cannot be decoded"
            )
        self._refine, self._metric, self._bits = refine, metric, bits
        self._name = encoder if isinstance(encoder, str) else None
        self._unit_rows = self._name is not None and metric == "cosine"
        self._encoder: Encoder | None = None
        self._codes: HammingIndex | None = None
        self._fitting = threading.Lock()
        if self._name is None:
            self._take(encoder)

    # What it holds

    @property
    def encoder(self) -> Encoder:
        """The encoder of its rows; raises ValueError while there were no rows to fit it on."""
        if self._encoder is None:
            raise ValueError(f"EmbeddingIndex: encoder {self._name!r} is not fitted, add rows first")
        return self._encoder

    @property
    def codes(self) -> HammingIndex:
        """The index of the codes, with the same ids and keys: for range searches, tables, export and the like."""
        if self._codes is None:
            raise ValueError(f"EmbeddingIndex: encoder {self._name!r} is not fitted, add rows first")
        return self._codes

    @property
    def refine(self) -> str | None:
        """The type of the stored rows; None: none are."""
        return self._refine

    @property
    def metric(self) -> str:
        """The metric of scores: "cosine", "dot" or "l2"."""
        return self._metric

    @property
    def ids(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The ids of the rows, int64 [len(index)], ascending."""
        return np.zeros(0, np.int64) if self._codes is None else self._codes.ids

    @property
    def keyed(self) -> bool:
        """Whether its rows have keys."""
        return self._codes is not None and self._codes.keyed

    @property
    def path(self) -> Path | None:
        """The folder of an opened index; None for one in memory."""
        return None if self._codes is None else self._codes.path

    def __len__(self) -> int:
        return 0 if self._codes is None else len(self._codes)

    def __contains__(self, id: object) -> bool:
        """Whether a row has this id, or this key if it is a str."""
        return self._codes is not None and id in self._codes

    def __repr__(self) -> str:
        encoder = repr(self._name) if self._encoder is None else repr(self._encoder)
        place = "" if self.path is None else f", path='{self.path}'"
        return f"EmbeddingIndex({encoder}, refine={self._refine!r}, metric={self._metric!r}, rows={len(self)}{place})"

    # Changing it

    def add(self, X: Any, keys: Any = None, *, ids: Any = None, replace: bool = False) -> Any:
        """Adds rows X [N, F] (one may be [F]) and gives their ids, int64 [N], as the kind that X is.

        keys: N distinct texts; ids: N distinct integers >= 0; replace: as `HammingIndex.add`. On an opened index one
        call is one durable transaction. It needs memory for the codes and the stored rows; `build` needs memory for a
        block of them. Raises ValueError or TypeError, before anything changes: NaN, another number of features, invalid
        ids or keys, too few rows to fit an encoder on.
        """
        function = "EmbeddingIndex.add"
        with self._fitting:
            features = None if self._encoder is None else encoders.features_of(self._encoder)
            rows = checked_rows(X, features, function)
            blocks = range(0, len(rows), ROWS)
            encoder = self._encoder
            if encoder is None and self._name is not None:
                first = torch.cat(
                    [block_of(rows, at, function) for at in range(0, min(len(rows), FIT_ROWS), ROWS)] or [rows]
                )
                first = encoder_rows(first[:FIT_ROWS], self._unit_rows)
                encoder = encoders.fit_encoder(self._name, self._bits, first, function)
            if encoder is None:
                raise RuntimeError("an index has an encoder or the name of one")
            parts = [self._encoded(encoder, block_of(rows, at, function), function) for at in blocks]
            codes = torch.cat([part.codes for part in parts]) if parts else self._no_codes(encoder)
            stored = [part.vectors for part in parts if part.vectors is not None]
            scales = [part.scales for part in parts if part.scales is not None]
            scale = torch.cat(scales) if scales else None
            if not parts and encoders.has_scales(encoder, self._metric, self._unit_rows):
                scale = torch.zeros(0, dtype=torch.float16)
            if not stored and self._refine is not None:
                stored = [Vectors.none(self._refine, encoders.features_of(encoder))]
            index = self._empty(encoder) if self._codes is None else self._codes
            with _own_name():
                given = index._add(codes, ids, keys, replace, scale, joined_vectors(stored) if stored else None)
            self._encoder, self._codes = encoder, index
        return given if isinstance(X, Tensor) else given.numpy()

    def remove(self, ids: Any = None, *, keys: Any = None) -> int:
        """Removes the rows of these ids, or of these keys, and gives how many there were; see `HammingIndex.remove`."""
        with _own_name():
            return 0 if self._codes is None else self._codes.remove(ids, keys=keys)

    def compact(self, *, progress: bool | None = False) -> None:
        """Rewrites codes, keys and stored rows without what was removed; see `HammingIndex.compact`."""
        self.codes.compact(progress=progress)

    def refresh(self) -> bool:
        """Reads what a writer has changed in the folder since; returns whether anything changed.

        Raises ValueError for an index in memory, IndexFolderError if the folder is damaged or now has another encoder.
        """
        with _own_name():
            return self.codes.refresh()

    # Searching it

    def search(self, Q: Any, k: int, *, oversample: int = 3, filter: Any = None) -> EmbeddingResult:
        """The k nearest rows of each query Q [q, F] (one may be [F]): scores, ids and keys, [q, k], nearest first.

        A scan compares all codes with the query itself, not rounded (`asymmetric_topk`). The oversample x k nearest
        codes are ordered by their scores; ties go to the lowest id. So a larger oversample finds more. Scores are those
        of the stored rows; without `refine` they are estimated from the codes (docs/embedding-index.md). filter: a
        boolean mask aligned with `ids`, or an array of allowed ids or keys. Raises ValueError or TypeError: NaN,
        another number of features, k or oversample < 1.
        """
        function = "EmbeddingIndex.search"
        k = whole(k, function, "k", 1, MOST)
        oversample = whole(oversample, function, "oversample", 1, MOST)
        encoder, index = self.encoder, frozen(self.codes)
        rows = checked_rows(Q, encoders.features_of(encoder), function, "Q")
        contents = index._contents
        count = min(k * oversample, max(k, contents.size))
        found = []
        with memory_for(f"{function}: no memory for {count} candidates of {len(rows)} queries"), _own_name():
            for at in range(0, len(rows), ROWS):
                queries = block_of(rows, at, function, "Q")
                encoded = encoder_rows(queries, self._unit_rows)
                near = candidates(index, encoder, self._metric, encoded, count, filter)
                found.append(best(contents, encoder, self._metric, queries, encoded, near, k))
        if not found:
            found = [(torch.zeros(0, k), torch.zeros(0, k, dtype=torch.int64))]
        scores, ids = (torch.cat(column) for column in zip(*found, strict=True))
        return told(scores, ids, contents, Q)

    # Where it lives

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Writes encoder, codes, keys and stored rows to a folder, where `open` finds them; see `HammingIndex.save`."""
        self.codes._save(path, overwrite, self._new_encoder(self.encoder))

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        mmap: bool = True,
        writable: bool = False,
        method: str = "auto",
    ) -> EmbeddingIndex:
        """Opens the index in a folder as it is now, with its encoder; see `HammingIndex.open`.

        Stored rows are mapped, and read for candidates only. A reader sees later changes after `refresh`. Raises
        IndexFolderError if the folder is no such index, is damaged or has another encoder than its manifest says.
        """
        folder = Path(path).absolute()
        codes = HammingIndex.open(folder, mmap, writable, method)
        try:
            manifest, data = encoder_of(folder)
            said = None if codes._folder is None else codes._folder.embedding
            if said is None or manifest.embedding != said:
                raise IndexFolderError(f"{folder}: was replaced while it was opened; open it again")
            encoder = encoders.encoder_from(data, str(folder / said.encoder))
            for what, found, needed in (
                ("features", encoders.features_of(encoder), said.features),
                ("bits", encoders.bits_of(encoder), codes.bits),
                ("bit_weights", encoders.weights_of(encoder), codes.bit_weights),
            ):
                if found != needed:
                    raise IndexFolderError(
                        f"{folder / said.encoder}: not the encoder of this index: its {what} are {found}, the index "
                        f"has {needed}"
                    )
        except BaseException:
            codes.close()
            raise
        index = cls(encoder, refine=said.refine, metric=said.metric)
        index._codes, index._unit_rows = codes, said.unit_rows
        return index

    @classmethod
    def build(
        cls,
        path: str | os.PathLike[str],
        source: Any,
        encoder: Any,
        *,
        refine: str | None = None,
        metric: str = "cosine",
        bits: int | None = None,
        ids: Any = None,
        keys: Any = None,
        column: str | None = None,
        id_column: str | None = None,
        key_column: str | None = None,
        overwrite: bool = False,
        progress: bool | None = None,
    ) -> EmbeddingIndex:
        """Writes an index folder from a stream of rows, in one transaction, and opens it.

        source: rows [N, F] (numpy, memmap or torch); an iterable of blocks of rows, of pairs (rows, ids) or of (rows,
        ids or None, keys); or a file: .npy, .npz with one array, CSV, Parquet or Arrow. `column` names the columns of
        the embeddings in a table. encoder, refine, metric, bits: as for an index in memory; a name is fitted on the
        first 50,000 rows. ids, keys, id_column, key_column: as for `HammingIndex.build`. Memory is bounded: some
        hundred MiB, and the needs of the fit of a name. progress: a bar on stderr; None: if that is a terminal. Raises
        as `HammingIndex.build`; the folder is then unchanged.
        """
        function = "EmbeddingIndex.build"
        made = cls(encoder, refine=refine, metric=metric, bits=bits)
        with _own_name():
            rows = open_rows(source, column, id_column, ids is None, function)
            fitted = made._encoder
            if fitted is None:
                first, rows = first_rows(rows)
                fitted = encoders.fit_encoder(encoder, bits, encoder_rows(first, made._unit_rows), function)
            if rows.features != encoders.features_of(fitted):
                needed = encoders.features_of(fitted)
                raise ValueError(f"{function}: the encoder takes {needed} features, the source has {rows.features}")

            def encode(block: Tensor) -> Block:
                return made._encoded(fitted, block, function)

            opened = coded(rows, encoders.bits_of(fitted), encode, ids, keys, key_column, source, function)
            weights = groups_of(encoders.weights_of(fitted), opened.bits, function)
            build(Path(path).absolute(), opened, overwrite, weights, progress, made._new_encoder(fitted))
        return cls.open(path)

    def verify(self, *, progress: bool | None = False) -> None:
        """Reads every byte of the folder of an opened index; raises IndexFolderError for the first fault found."""
        with _own_name():
            self.codes.verify(progress=progress)

    def close(self) -> None:
        """Gives up the folder's lock; the index can still be searched, but no longer be changed."""
        if self._codes is not None:
            self._codes.close()

    def __enter__(self) -> EmbeddingIndex:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _take(self, encoder: Encoder) -> None:
        self._encoder, self._codes = encoder, self._empty(encoder)

    def _empty(self, encoder: Encoder) -> HammingIndex:
        return HammingIndex(encoders.bits_of(encoder), bit_weights=encoders.weights_of(encoder))

    def _no_codes(self, encoder: Encoder) -> Tensor:
        return torch.zeros(0, -(-encoders.bits_of(encoder) // 8), dtype=torch.uint8)

    def _encoded(self, encoder: Encoder, block: Tensor, function: str) -> Block:
        """Codes of finite rows float32 [n, F], their scales, and what is stored of the rows."""
        rows = encoder_rows(block, self._unit_rows)
        codes, scaled = encoder.encode(rows), encoders.has_scales(encoder, self._metric, self._unit_rows)
        return Block(
            codes,
            vectors=None
            if self._refine is None
            else Vectors.of(stored_rows(block, self._metric), self._refine, function),
            scales=encoders.scales_of(encoder, rows, codes, self._metric) if scaled else None,
        )

    def _new_encoder(self, encoder: Encoder) -> NewEncoder:
        features = encoders.features_of(encoder)
        told = Embedding("", "", features, self._metric, self._unit_rows, self._refine)
        return NewEncoder(encoders.encoder_bytes(encoder), told)


@contextlib.contextmanager
def _own_name() -> Iterator[None]:
    """Errors of the index of codes in the name of this one."""
    try:
        yield
    except IndexFolderError:
        raise
    except (ValueError, TypeError) as error:
        message = str(error)
        if not message.startswith("HammingIndex"):
            raise
        raise type(error)(message.replace("HammingIndex", "EmbeddingIndex", 1)) from None
