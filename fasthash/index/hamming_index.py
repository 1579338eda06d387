"""HammingIndex: exact search over codes with ids, in memory or in a folder."""

from __future__ import annotations

import contextlib
import operator
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace as changed
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from fasthash._arguments import MAX_BITS, MOST, memory_for, one_device, several_devices, whole
from fasthash._arrays import like, to_tensor
from fasthash._bit_weights import bit_weights as flat_bit_weights
from fasthash.codes import check_codes, code_bytes
from fasthash.hamming import RangeResult, SearchResult
from fasthash.index import keyed
from fasthash.index.errors import IndexFolderError
from fasthash.index.exchange.build import build
from fasthash.index.exchange.exports import export
from fasthash.index.exchange.sources import open_source
from fasthash.index.folder import Folder, make_extras, save
from fasthash.index.groups import groups_of
from fasthash.index.joins import Side
from fasthash.index.key_texts import key_bytes
from fasthash.index.merge import Merged, compacted, cut, settle
from fasthash.index.scales import Scales
from fasthash.index.search import order
from fasthash.index.search.devices import Devices
from fasthash.index.search.parts import PartsOf, Query, eligible_parts, parse_queries, scanned_parts
from fasthash.index.search.real import new_scales, real_query, wants_all
from fasthash.index.search.results import rescored, topk, within
from fasthash.index.search.tables import BUDGETS, TableSearch
from fasthash.index.segments import ID_END, Contents, Segment, block_rows, id_tensor, make_segment, without
from fasthash.index.split import Split
from fasthash.index.store import table_file
from fasthash.index.store.encoder_file import NewEncoder
from fasthash.index.store.vector_file import NEEDED
from fasthash.index.vectors import Vectors

_EXTRAS = (table_file,)  # the kinds of extra files that searches can use
_Result = TypeVar("_Result", SearchResult, RangeResult)


class HammingIndex(Split, Scales):
    """Binary codes with ids, searched exactly by Hamming distance.

    `HammingIndex(bits, device="cpu")` makes an empty one in memory, `HammingIndex.open(path)` maps one that `save`
    wrote. Codes are packed uint8 [N, ceil(bits / 8)] (`pack_bits`); ids are any unique int64 >= 0. All codes may also
    have keys: unique texts, for example file names. Results are ordered by (distance, id): ties go to the lowest id,
    for any order of insertion. With `bit_weights` a differing bit counts the weight of its group, in all distances and
    radii. Arguments may be numpy arrays or torch tensors; results have the same kind, on the device of the queries.
    Searches may run in any number of threads while one thread changes the index: each sees the complete state at its
    start. On a GPU a call runs on the caller's current stream, and calls on different streams keep their order.

    >>> import numpy as np
    >>> index = HammingIndex(bits=8)
    >>> index.add(np.array([[0b11110000], [0b00001111]], dtype=np.uint8), ids=[7, 3])
    array([7, 3])
    >>> index.search(np.array([[0b11110001]], dtype=np.uint8), k=2)
    SearchResult(distances=array([[1, 7]], dtype=int32), ids=array([[7, 3]]))
    >>> index = HammingIndex(bits=8)
    >>> _ = index.add(np.array([[0b11110000], [0b00001111]], dtype=np.uint8), keys=["cat.jpg", "dog.jpg"])
    >>> index.search(np.array([[0b11110001]], dtype=np.uint8), k=2).keys.tolist()
    [['cat.jpg', 'dog.jpg']]
    """

    def __init__(self, bits: int, device: Any = "cpu", *, bit_weights: Any = None):
        """An empty index in memory for codes of `bits` bits, 1 to 65,536, on a torch device.

        device may be a list, for example ["cuda:0", "cuda:1"] or ["cuda"]: the codes then stay in host memory. Every
        device gets a copy of its part if there is room; the rest streams through the devices in each search.
        bit_weights: (bits, weight) of 1 to 64 contiguous groups that make up the code, the group of its first bits
        first, with integer weights 1 to 255: a differing bit counts its group's weight. None: every bit counts 1. The
        weights of an index never change. Raises ValueError or TypeError.
        """
        self._bits = whole(bits, "HammingIndex", "bits", 1, MAX_BITS)
        self._groups = groups_of(bit_weights, self._bits, "HammingIndex")
        self._weights = flat_bit_weights(self._groups or None, "HammingIndex", code_bytes(self._bits))
        several = isinstance(device, (list, tuple))
        self._devices = Devices(several_devices(device, "HammingIndex")) if several else None
        self._device = torch.device("cpu") if several else one_device(device, "HammingIndex")
        self._state: tuple[Contents, Any] = (Contents.of((), 0), None)
        self._folder: Folder | None = None  # None: it is in memory
        self._method = "scan"
        self._parts_of: PartsOf = scanned_parts
        self._changing = threading.Lock()

    # What it holds

    @property
    def _contents(self) -> Contents:
        """Its present content. The caller's stream may read it from here on."""
        contents, event = self._state
        order.before_use(contents, event, self._device)
        return contents

    @_contents.setter
    def _contents(self, contents: Contents) -> None:
        self._state = contents, order.made(self._device)

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return self._bits

    @property
    def bit_weights(self) -> list[tuple[int, int]] | None:
        """(bits, weight) of each group of bits; None: undivided, every bit counts 1."""
        return list(self._groups) or None

    @property
    def device(self) -> torch.device:
        """The device of the codes: the host's memory for an index that was opened, or has a list of devices."""
        return self._device

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """The device of searches."""
        return (self._device,) if self._devices is None else self._devices.devices

    @property
    def path(self) -> Path | None:
        """The folder that an opened index reads; None for one in memory."""
        return None if self._folder is None else self._folder.path

    @property
    def ids(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The ids of the live codes, int64 [len(index)], ascending. Made on every call: 8 bytes a code."""
        ids: np.ndarray[Any, np.dtype[np.int64]] = self._contents.ids().cpu().numpy()
        return ids

    @property
    def id_range(self) -> tuple[int, int] | None:
        """The lowest and the highest id of the live codes; None where there are none. Costs nothing, unlike `ids`."""
        return self._contents.bounds()

    def __len__(self) -> int:
        return self._state[0].size

    @property
    def keyed(self) -> bool:
        """Whether its codes have keys. An index that has had some takes no codes without."""
        return self._state[0].keyed

    def __contains__(self, id: object) -> bool:
        """Whether a code has this id, or this key if it is a str."""
        if isinstance(id, str):
            key = key_bytes(id)
            return key is not None and self._contents.has_key(*key)
        try:
            number = operator.index(id)  # type: ignore[arg-type]
        except TypeError:
            return False
        if not 0 <= number < ID_END:
            return False
        wanted = torch.tensor([number], device=self._device)
        return any(int(segment.find(wanted)) >= 0 for segment in self._contents.segments)

    def __repr__(self) -> str:
        place = f"device={self._places()!r}" if self._folder is None else f"path='{self._folder.path}'"
        weights = f"bit_weights={list(self._groups)}, " if self._groups else ""
        return f"HammingIndex(bits={self._bits}, {weights}codes={len(self)}, {place})"

    def _places(self) -> str | list[str]:  # what `device` was
        return str(self._device) if self._devices is None else [str(device) for device in self._devices.devices]

    def get(self, ids: Any = None, *, keys: Any = None) -> Any:
        """The codes of these ids, or of these keys, uint8 [M, ceil(bits / 8)], in their order (one may be repeated).

        ids: M integers; a tensor gives a tensor on its device, anything else a numpy array. keys: M texts. Raises
        KeyError if some are unknown, and names the first.
        """
        contents = self._contents
        wanted, named = keyed.asked_ids(contents, ids, keys, self._device, "HammingIndex.get")
        codes, found = contents.codes_of(wanted, code_bytes(self._bits))
        keyed.refuse_unknown(wanted, named, found, "HammingIndex.get")
        return like(codes.to(ids.device) if isinstance(ids, Tensor) else codes, ids)

    def ids_of(self, keys: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The ids of these keys, int64 [M]; -1 where no code has the key. Raises ValueError or TypeError."""
        ids, _ = keyed.known_keys(self._contents, keys, self._device, "HammingIndex.ids_of")
        found: np.ndarray[Any, np.dtype[np.int64]] = ids.cpu().numpy()
        return found

    def keys_of(self, ids: Any) -> np.ndarray[Any, np.dtype[Any]]:
        """The keys of these ids, objects [M]; None where no code has the id, or codes have no keys.

        >>> import numpy as np
        >>> index = HammingIndex(bits=8)
        >>> index.add(np.array([[1], [2]], dtype=np.uint8), keys=["a", "b"])
        array([0, 1])
        >>> index.keys_of([1, 5]).tolist(), index.ids_of(["b", "c"]).tolist(), "a" in index
        (['b', None], [1, -1], True)
        """
        return self._contents.keys_of_ids(id_tensor(ids, "HammingIndex.keys_of").to(self._device))

    # Changing it

    def add(
        self, codes: Any, ids: Any = None, *, keys: Any = None, replace: bool = False, code_scale: Any = None
    ) -> Any:
        """Adds codes, uint8 [N, ceil(bits / 8)], and gives their ids, int64 [N], as the kind that the codes are.

        ids: N distinct integers >= 0 that the index does not hold, in any order (ids of removed codes may be used
        again); None continues from the highest id ever used + 1. keys: N distinct texts of at most 2**20 bytes in UTF-8
        that the index does not hold, compared byte by byte; all codes of an index have keys, or none has. replace=True:
        new codes replace those with the same id, and those with the same key, whose ids are then free. code_scale:
        float16 [N], a number for each code that `search(rescore="all")` uses, see `asymmetric_topk`; all codes of an
        index have one, or none has. On an opened index one call is one durable transaction: when it returns, the codes
        are on the disk. Raises ValueError or TypeError, before anything changes, for codes of another width or type,
        non-zero padding bits, ids or keys that are repeated, taken or invalid, and if only the new codes, or only the
        old ones, have a code_scale.
        """
        return self._add(codes, ids, keys, replace, code_scale)

    def _add(self, codes: Any, ids: Any, keys: Any, replace: bool, scale: Any, vectors: Vectors | None = None) -> Any:
        """`add`; vectors: rows that are stored beside the codes, as an EmbeddingIndex does."""
        packed = to_tensor(codes, "HammingIndex.add", "codes")
        check_codes(packed, self._bits, "HammingIndex.add")
        with self._change("add") as contents:
            named = keyed.parse_new_keys(contents, keys, len(packed), "HammingIndex.add")
            scale = new_scales(scale, contents, len(packed), self._device)
            numbers, next_id = contents.new_ids(ids, len(packed), replace, self._device)
            if len(packed):
                need = packed.nbytes + (0 if isinstance(numbers, int) else numbers.nbytes)
                with memory_for(f"HammingIndex.add: no memory for {need} bytes on {self._device}"):
                    kept = packed.to(self._device, copy=self._folder is None).contiguous()  # a file is copy enough
                new, segments = make_segment(kept, numbers, named, scale, vectors), contents.segments
                if vectors is None and any(segment.vectors is not None for segment in segments):
                    raise ValueError(f"HammingIndex.add: {NEEDED}")
                gone = keyed.replaced_ids(contents, new, named, replace, self._device, "HammingIndex.add")
                if replace:
                    gone = gone if isinstance(numbers, int) else torch.cat([gone, numbers])
                    segments = without(segments, gone.unique())[0]
                self._commit(settle((*segments, *cut(new))), next_id)
        if ids is None:
            given = torch.arange(len(packed), device=packed.device) + contents.next_id
        else:
            given = id_tensor(ids, "HammingIndex.add").to(packed.device)
        return like(given, codes)

    def remove(self, ids: Any = None, *, keys: Any = None) -> int:
        """Removes the codes of these ids, or of these keys, and gives how many there were.

        Unknown and repeated ones do not count. On an opened index one call is one durable transaction.
        """
        with self._change("remove") as contents:
            wanted, _ = keyed.asked_ids(contents, ids, keys, self._device, "HammingIndex.remove")
            segments, removed = without(contents.segments, wanted.unique())
            if removed:
                self._commit(settle(segments), contents.next_id)
        return removed

    def compact(self, *, progress: bool | None = False) -> None:
        """Rewrites the codes in ascending order of id into the fewest segments (of 2**30 codes at most).

        This frees the space of deleted codes, and searches have one segment to go through. On an opened index it is one
        durable transaction. It needs room for a second copy on the disk, but memory for a few blocks only; readers keep
        what they have open. It writes nothing if nothing would change. If segments had tables (`build_mih`), a second
        transaction makes tables of the new ones. progress: a bar on stderr; None: if that is a terminal.
        """
        with self._change("compact") as contents:
            segments = compacted(contents.segments, block_rows(self._bits))
            if len(segments) < len(contents.segments) or any(isinstance(segment, Merged) for segment in segments):
                self._commit(segments, contents.next_id, progress)
                if self._folder is not None:
                    for extra in _EXTRAS:
                        if any(segment.entry and segment.entry.extra(extra.KIND) for segment in contents.segments):
                            self._contents = self._folder.with_extras(extra, self._bits, self._contents, progress)

    def build_mih(self, *, progress: bool | None = False) -> None:
        """Makes the tables of multi-index hashing: with them, a search for a few close codes skips most of the index.

        They are files beside the segments and take about 8 m bytes a code (12 m above 64 bits), for m tables of
        substrings of about 20 bits: at 1e8 codes m = 3 for 64 bits, 6 for 128. One durable transaction, for an index
        that is open with writable=True. Codes that are added later are scanned until the next call, which makes only
        the tables of their segments. Segments of fewer than 1,024 codes are always scanned. Memory: about 0.8 GiB at
        most. progress: a bar on stderr; None: if that is a terminal. Raises ValueError for an index in memory or opened
        read-only, OSError if the disk is full.
        """
        with self._change("build_mih"):
            if self._folder is None:
                raise ValueError("HammingIndex.build_mih: the index is in memory; save it and open the folder")
            self._contents = self._folder.with_extras(table_file, self._bits, self._contents, progress)

    def refresh(self) -> bool:
        """Reads what a writer has changed in the folder of an opened index since; returns whether anything changed.

        Segments that are still part of the index are not opened again. Raises ValueError for an index in memory, and
        IndexFolderError if the folder is damaged or now holds an index of other codes; the index is then unchanged.
        Running searches end on the state that they began with.
        """
        with self._changing:
            if self._folder is None:
                raise ValueError("HammingIndex.refresh: the index is in memory; open one from a folder")
            before = self._contents
            self._contents = self._folder.refreshed(self._bits, self._groups, before)
            entries = [{segment.entry for segment in contents.segments} for contents in (before, self._contents)]
            return entries[0] != entries[1] or before.next_id != self._contents.next_id

    @contextlib.contextmanager
    def _change(self, what: str) -> Iterator[Contents]:
        if self._folder is not None:
            self._folder.check_process()
        with self._changing:
            if self._folder is not None and self._folder.frozen:
                raise ValueError(f"HammingIndex.{what}: {self._folder.frozen}")
            yield self._contents

    def _commit(self, segments: Sequence[Segment | Merged], next_id: int, progress: bool | None = False) -> None:
        """Makes these segments the state of the index: on disk first, where it lives there."""
        if self._folder is None:
            made = [segment.made() if isinstance(segment, Merged) else segment for segment in segments]
            self._contents = Contents.of(made, next_id, self.keyed)
        else:
            self._contents = self._folder.commit(self._bits, next_id, segments, progress)
            self._folder.finish()

    # Searching it

    def search(
        self, queries: Any, k: int, filter: Any = None, rescore: int | str = 0, *, metric: str = "l1"
    ) -> SearchResult:
        """The k nearest codes of each query: distances and ids, [Q, k], ordered by (distance, id).

        queries: packed uint8 [Q, ceil(bits / 8)], or real-valued [Q, bits] in [0, 1], which are rounded for the search.
        k: any number >= 1; if fewer codes are eligible, the missing places have id -1 and the largest distance + 1
        (bits + 1; with bit_weights the sum of bits x weight, + 1).
        filter: which codes are eligible, for all queries: a boolean mask aligned with `index.ids`, or an array of
        allowed ids or keys (unknown ones are ignored). rescore: f >= 1 takes the f * k nearest of real-valued queries
        and orders them by the asymmetric distance sum_d w_d |q_d - b_d|, w_d = 1 or the weight of bit d, ties by id.
        rescore="all" compares them with all codes, exactly, by the metric "l1" (that sum), "dot", "cosine" or "l2" of
        `asymmetric_topk`: missing places then have distance infinity. Queries may be any numbers, except for "l1". If
        codes have a code_scale, all metrics but "l1" use it. Distances are int32, float32 with rescore; ids are int64;
        `keys` of the result are those of the ids, if the index has keys. Raises ValueError or TypeError; MemoryError if
        there is no room for so many results.
        """
        function = "HammingIndex.search"
        query: Query
        real: Tensor | None = None
        everything = wants_all(rescore, metric, function)
        if everything:
            query = real_query(queries, self._bits, self._weights, metric, self._device, function)
        else:
            query, real = parse_queries(queries, self._bits, self._weights, self._device, function)
        k, rescore = whole(k, function, "k", 1), 0 if everything else whole(rescore, function, "rescore", 0)
        if k > MOST:
            raise ValueError(f"{function}: k must be at most 2**40, got {k}")
        if rescore and real is None:
            raise ValueError(f"{function}: rescore needs real-valued queries [Q, {self._bits}], got packed codes")
        contents = self._contents
        filter = keyed.filter_of_ids(contents, filter, self._device, function)
        wanted = min(k * rescore, max(k, contents.size)) if rescore else k
        with memory_for(f"{function}: no memory for {wanted} results of {len(query)} queries"):
            if self._devices is not None:
                found = self._devices.topk(contents, query, filter, wanted, function)
            else:
                parts_of = scanned_parts if everything else self._parts_of
                parts = eligible_parts(contents, filter, self._device, function, parts_of)
                found = topk(query, parts, wanted, contents.ordered and not everything)
        if rescore and real is not None:
            found = rescored(contents.codes_of, real, self._weights, found.ids, k)
        return self._told(found, queries, contents)

    def range_search(self, queries: Any, radius: int, filter: Any = None) -> RangeResult:
        """All codes within `radius` (inclusive, >= 0; with bit_weights a weighted distance) of each query.

        Gives RangeResult(offsets int64 [Q + 1], distances int32 [T], ids int64 [T]): query i has results offsets[i] to
        offsets[i + 1], by (distance, id). queries and filter are as for `search`. Segments with tables (`build_mih`)
        are searched by them if that should be faster: at small radii. Raises ValueError or TypeError.
        """
        function = "HammingIndex.range_search"
        query, _ = parse_queries(queries, self._bits, self._weights, self._device, function)
        radius = min(whole(radius, function, "radius", 0), int(query.largest))
        contents = self._contents
        filter = keyed.filter_of_ids(contents, filter, self._device, function)
        with memory_for(f"{function}: no memory for the results of {len(query)} queries"):
            if self._devices is not None:
                found = self._devices.within(contents, query, filter, radius, function)
            else:
                parts = eligible_parts(contents, filter, self._device, function, self._parts_of)
                found = within(query, parts, radius, contents.ordered)
            return self._told(found, queries, contents)

    def _told(self, found: _Result, queries: Any, contents: Contents) -> _Result:
        """A result as the kind that the queries are, on their device, and with keys where there are some."""

        def before_use() -> None:
            order.before_use(contents, self._state[1], self._device)

        return keyed.told(found, queries, contents, self._device, before_use)

    def _side(self) -> Side:
        return Side(self._contents, self._bits, self._groups, self._device)

    # Where it lives

    def to(self, device: Any) -> HammingIndex:
        """A new index in memory, on another torch device (or a list), with the same codes, ids, keys and weights."""
        copy = HammingIndex(self._bits, device, bit_weights=self.bit_weights)
        contents = self._contents
        segments = []
        for segment in contents.segments:
            if segment.count:
                made = Merged.of([segment]).made()
                ids = None if made.ids is None else made.ids.to(copy._device, copy=True)
                with memory_for(f"HammingIndex.to: no memory for {made.codes.nbytes} bytes on {copy._device}"):
                    codes = made.codes.to(copy._device, copy=True)
                scales = None if made.scales is None else made.scales.to(copy._device, copy=True)
                segments.append(changed(made, codes=codes, ids=ids, scales=scales))
        copy._contents = Contents.of(segments, contents.next_id, contents.keyed)
        return copy

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Writes the index to a folder (which it makes if needed), where `HammingIndex.open` finds it.

        overwrite=True replaces an index in one step: at any instant the folder holds the whole old one or the whole new
        one. Raises IndexFolderError if the folder holds an index (overwrite=False), is not empty, is read-only or has
        another writer; OSError if the disk is full. Of an EmbeddingIndex it writes only the codes, ids and keys.
        """
        self._save(path, overwrite)

    def _save(self, path: str | os.PathLike[str], overwrite: bool, encoder: NewEncoder | None = None) -> None:
        """`save`; encoder: what made the codes, as an EmbeddingIndex saves it."""
        folder = Path(path).absolute()
        with self._changing:
            own = self._folder
            if own is not None and own.writable and overwrite and folder.exists() and folder.samefile(own.path):
                return  # every change is there already
            save(folder, overwrite, self._bits, self._groups, self._contents, encoder)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        mmap: bool = True,
        writable: bool = False,
        method: str = "auto",
        device: Any = "cpu",
        links_within: str | os.PathLike[str] | None = None,
    ) -> HammingIndex:
        """Opens the index in a folder, as it is now; it does not see later changes by a writer.

        mmap=True maps the codes (nothing is copied; they may be larger than memory) and checks all but their content;
        mmap=False loads them and checks their checksums too. writable=True makes this the folder's one writer, until
        `close`: add and remove then change the folder. method: how searches go through segments that have the tables of
        `build_mih`; results are the same. "auto" takes the faster way by measured prices: those of `build_mih`,
        corrected over many searches; an attempt that fails costs little. "mih" uses tables as long as the scan takes;
        if the index has none, it first makes them, as `build_mih` does. "scan" never uses them. device: where searches
        run, a torch device or a list. All but "cpu" scan, on the devices: copies of the codes if there is room, and
        blocks that stream from the folder for the rest. links_within: a folder that the files of the index may link
        into, as in a download cache; the index is then read-only. None: links are refused.

        Raises ValueError for another method; IndexFolderError if the folder is not an index, is damaged, needs an
        unknown version or feature of the format, or (writable, or without tables for "mih") is read-only or open in
        another writer.
        """
        if method not in ("scan", *BUDGETS):
            raise ValueError(f"HammingIndex.open: method must be 'auto', 'scan' or 'mih', got {method!r}")
        within = None if links_within is None else Path(links_within).absolute()
        if within is not None and writable:
            raise ValueError("HammingIndex.open: links_within is for reading; copy the folder (cp -rL) to change it")
        folder = Folder(Path(path).absolute(), mmap, writable, () if method == "scan" else _EXTRAS, within)
        try:
            manifest, contents = folder.load()
            could = [segment for segment in contents.segments if table_file.can_have(segment)]
            if method == "mih" and could and not any(table_file.KIND in segment.extras for segment in could):
                if writable:
                    contents = folder.with_extras(table_file, manifest.bits, contents, progress=None)
                elif within is not None:
                    raise IndexFolderError(
                        f"{folder.path}: has no tables for method 'mih', and is open for reading only"
                    )
                else:
                    make_extras(folder.path, table_file)
                    manifest, contents = folder.load()
            plain = isinstance(device, (list, tuple)) or str(device) == "cpu"
            index = cls(manifest.bits, device if plain else [device], bit_weights=manifest.bit_weights or None)
        except BaseException:
            folder.close()
            raise
        index._contents, index._folder, index._method = contents, folder, method
        index._parts_of = scanned_parts if method == "scan" else TableSearch(BUDGETS[method])
        return index

    @classmethod
    def build(
        cls,
        path: str | os.PathLike[str],
        source: Any,
        bits: int | None = None,
        ids: Any = None,
        *,
        format: str | None = None,
        column: str | None = None,
        id_column: str | None = None,
        keys: Any = None,
        key_column: str | None = None,
        overwrite: bool = False,
        mih: bool = False,
        bit_weights: Any = None,
        code_scale: Any = None,
        progress: bool | None = None,
    ) -> HammingIndex:
        """Writes an index folder from a stream of codes, in one transaction, and opens it.

        Memory is bounded by a block (some hundred MiB), not by the number of codes. source: packed codes uint8 [N,
        ceil(bits / 8)], numbers of 16, 32 or 64 bits [N] or booleans [N, bits] (numpy, memmap or torch); an iterable of
        blocks of packed codes, of pairs (codes, ids) or of (codes, ids or None, keys); or a file, recognised by its
        content: .npy, .npz with one array, text of hexadecimal or decimal hashes, CSV, TSV, Parquet, Arrow, faiss
        IndexBinaryFlat or .u8bin (docs/files.md). Bit 0 of a code is a number's most significant bit.

        bits: 8 for each byte unless given. ids: N distinct integers >= 0 or a file of them; None: the column "id" or
        "ids" of a table, else 0 .. N - 1, which take no space. Explicit ids are sorted in runs; each run becomes a
        segment, and `compact` merges them. keys: N distinct texts, or a file of them: text with a key a line, CSV,
        Parquet or Arrow. key_column: the column of keys, in the table of codes or in that file. format: the format of
        the file: "raw" for packed codes without a header (needs bits), "hex" or "decimal" for text that could be both;
        content of another kind is refused. column, id_column: the columns of codes and ids in a table, if several fit
        or ids have another name.

        mih=True: then makes the tables of `build_mih`, in a second transaction. bit_weights: as for an index in memory,
        of `bits` bits in total. code_scale: float16 [N] as for `add`, or a `.npy` file. progress: a bar on stderr;
        None: if that is a terminal. Raises ValueError or TypeError for invalid codes, ids, keys or kinds of files,
        OSError if a file cannot be read or the disk is full, IndexFolderError as `save`; the folder is then unchanged.
        Warns if rows are numbered although a column looks like ids.

        >>> import numpy as np, tempfile
        >>> blocks = (np.full((1000, 8), number, dtype=np.uint8) for number in range(3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     len(HammingIndex.build(folder + "/index", blocks, bits=64))
        3000
        """
        folder = Path(path).absolute()
        names = {"format": format, "column": column, "id_column": id_column, "key_column": key_column}
        opened = open_source(source, bits, ids, "HammingIndex.build", keys=keys, code_scale=code_scale, **names)
        build(folder, opened, overwrite, groups_of(bit_weights, opened.bits, "HammingIndex.build"), progress)
        if mih:
            with cls.open(folder, writable=True) as index:
                index.build_mih(progress=progress)
        return cls.open(folder)

    def export(
        self, path: str | os.PathLike[str], ids: str | os.PathLike[str] | None = None, *, progress: bool | None = None
    ) -> None:
        """Writes the codes, in ascending order of id, to a file for other programs (it replaces an existing file).

        The suffix says the format: `.npy` (uint8 [N, ceil(bits / 8)]), `.u8bin`, `.faiss` or `.ibxf` (for
        `faiss.read_index_binary`: an IndexBinaryFlat, inside an IndexBinaryIDMap if the ids are not 0 .. N - 1),
        `.parquet`, `.arrow` or `.feather` (columns id, key if there are keys, and code; need pyarrow). ids: a `.npy`
        file to write the ids to. The other formats cannot hold keys, which a warning says, and no format holds
        bit_weights: other programs search by the number of differing bits. Memory is bounded by a block. Raises
        ValueError for another suffix and for code_scale, which no format can hold; OSError.
        """
        export(self._contents, self._bits, Path(path), None if ids is None else Path(ids), progress)

    def verify(self, *, progress: bool | None = False) -> None:
        """Reads every byte of the folder of an opened index; raises IndexFolderError for the first fault found.

        Checks what it holds now: checksums, order of ids, padding bits. progress: a bar on stderr; None: on a terminal.
        """
        if self._folder is None:
            raise ValueError("HammingIndex.verify: the index is in memory; open one from a folder")
        self._folder.verify(_EXTRAS, progress)

    def close(self) -> None:
        """Gives up the folder's lock; the index can still be searched, but no longer be changed."""
        with self._changing:
            if self._folder is not None:
                self._folder.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles and copies: what is in memory with its codes, an opened index as its path, opened again read-only."""
        folder = self._folder
        if folder is not None and folder.writable:
            raise TypeError(f"HammingIndex: {folder.path} is open for writing and cannot be copied; open it read-only")
        if folder is None:
            return partial(type(self), self._bits, self._places(), bit_weights=self.bit_weights), (), self._contents
        given: dict[str, Any] = {"method": self._method, "device": self._places(), "links_within": folder.links_within}
        return partial(type(self).open, str(folder.path), folder.mmap, **given), ()

    def __setstate__(self, contents: Contents) -> None:
        self._contents = contents

    def __enter__(self) -> HammingIndex:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
