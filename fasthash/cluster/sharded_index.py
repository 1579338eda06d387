"""ShardedIndex: one index over the shards of several machines, with the results of a HammingIndex."""

from __future__ import annotations

import math
import operator
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fasthash._arguments import choice, memory_for, whole
from fasthash._arrays import like, to_tensor
from fasthash.cluster.asking import Asked, Call
from fasthash.cluster.changes import Changes
from fasthash.cluster.errors import shard_error
from fasthash.cluster.handle import own_name, parse_source, seconds_of, shared_out
from fasthash.cluster.joins import ShardedJoins
from fasthash.cluster.merge import merged_topk, nearest_first
from fasthash.cluster.results import ShardedRangeResult, ShardedSearchResult
from fasthash.hamming import RangeResult, SearchResult
from fasthash.index.search.parts import largest_distance
from fasthash.index.search.results import combined_ranges
from fasthash.index.segments import ID_END, id_tensor

_BATCH = 4096  # queries that go to the shards at once
_BATCH_RESULTS = 1 << 21  # results of a shard for one batch
_AHEAD = 2  # batches that are under way while one is merged


class ShardStats(NamedTuple):
    """One replica of a shard. error: why it has no figures; "" where it has."""

    shard: str
    replica: int
    codes: int
    segments: int
    searches: int
    host: str
    process: int
    error: str


class ShardedIndex(Changes, ShardedJoins):
    """An index whose shards are searched by Ray actors, on one machine or on many: exact, as one `HammingIndex`.

    Results are those of a HammingIndex with the same codes, in the same (distance, id) order, whatever the number of
    shards. A search is complete, or an error that names the shards without an answer; `partial="allow"` gives what
    there is. Calls may come from any number of threads, and a pickled copy searches from any Ray task or actor. Every
    node of the cluster must see the folders under the same path, and have the same version of fasthash.

    >>> with ShardedIndex("shards", writable=True, replicas=2) as shards:  # doctest: +SKIP
    ...     ids = shards.add(codes)
    ...     shards.search(codes[:1], k=10, timeout=5).ids
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        shards: int | None = None,
        *,
        writable: bool = False,
        replicas: int = 1,
        threads: int = 1,
        device: str = "cpu",
        method: str = "auto",
        timeout: float = 60.0,
        options: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ):
        """Starts the actors of an index, in the Ray cluster that this process is in (`ray.init`).

        Args:
            source: an index folder, whose segments are shared out to `shards` actors, for reading; or a folder that
                `HammingIndex.split` made; or a list of index folders with distinct ids, one a shard.
            shards: of one index folder: 1 to its number of segments; None: that number.
            writable: add and remove change the folders. This object is then their one writer.
            replicas: actors of each shard, >= 1, on different nodes as far as there are some. A search asks one, and
                another where that fails.
            threads: CPU threads of a search in one shard, and CPUs that Ray reserves for an actor.
            device: where shards are searched, "cpu" or "cuda": an actor then has a GPU of its own.
            method: as of `HammingIndex.open`.
            timeout: seconds that a call may take, unless it says otherwise; math.inf: no limit. Actors have two minutes
                to start, or as long as that.
            options: Ray's options of the actors, say {"num_cpus": 0.5} or {"resources": {"rack1": 1}}; or a list of
                them, one for each shard.

        A shard that cannot be read is named by each search. Raises ImportError without ray, IndexFolderError for a
        folder that is none of these, ShardError where no shard answers, ValueError or TypeError for other arguments.
        """
        function = "ShardedIndex"
        super().__init__(
            parse_source(source, shards, writable, function),
            writable,
            whole(replicas, function, "replicas", 1),
            whole(threads, function, "threads", 1),
            str(device),
            choice(method, function, "method", ("auto", "mih", "scan")),
            seconds_of(timeout, function),
            options,
            function,
        )

    # What it holds

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return self._model.bits

    @property
    def bit_weights(self) -> list[tuple[int, int]] | None:
        """(bits, weight) of each group of bits; None: every bit counts 1."""
        return self._model.bit_weights

    @property
    def shards(self) -> list[str]:
        """The names of the shards, as `missing` has them: their folders, or the number of a part of one."""
        return list(self._shards.names)

    @property
    def ids(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The ids of the live codes, int64 [len(index)], ascending: 8 bytes a code that all shards send."""
        return self._ids(self._call("ShardedIndex.ids", None))

    def __len__(self) -> int:
        self._learn(self._call("ShardedIndex.len", None))
        return sum(fact.codes for fact in self._facts if fact is not None)

    def __contains__(self, id: object) -> bool:
        """Whether a code has this id, or this key if it is a str."""
        if isinstance(id, str):
            return bool((self.ids_of([id]) >= 0).all())
        try:
            number = operator.index(id)  # type: ignore[arg-type]
        except TypeError:
            return False
        if not 0 <= number < ID_END:
            return False
        found, _ = self._ask("held", (np.array([number]), None), self._call("ShardedIndex.contains", None))
        return any(len(own) for own in found.values())

    def __repr__(self) -> str:
        return f"ShardedIndex(bits={self.bits}, shards={len(self._shards)}, replicas={len(self._shards.replicas[0])})"

    def get(self, ids: Any = None, *, keys: Any = None, timeout: float | None = None) -> Any:
        """The codes of these ids, or of these keys, as of `HammingIndex.get`; raises KeyError for unknown ones."""
        function = "ShardedIndex.get"
        if (ids is None) == (keys is None):
            raise ValueError(f"{function}: either ids or keys must be given, got {'none' if ids is None else 'both'}")
        wanted = None if ids is None else id_tensor(ids, function).cpu().numpy()
        count = len(keys) if wanted is None else len(wanted)
        codes, there = np.zeros((count, -(-self.bits // 8)), np.uint8), np.zeros(count, np.bool_)
        answers, _ = self._ask("codes_of", (wanted, keys), self._call(function, timeout))
        for found, own in answers.values():
            codes[found] = own
            there |= found
        if not there.all():
            first = int(np.flatnonzero(~there)[0])
            name = f"key {keys[first]!r}" if wanted is None else f"id {wanted[first]}"
            kind = "keys" if wanted is None else "ids"
            raise KeyError(f"{function}: no code has {name} ({int((~there).sum())} of {count} {kind} are unknown)")
        return torch.from_numpy(codes).to(ids.device) if isinstance(ids, Tensor) else codes

    def ids_of(self, keys: Any, *, timeout: float | None = None) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The ids of these keys, int64 [M]; -1 where no code has the key."""
        found, _ = self._ask("ids_of", (keys,), self._call("ShardedIndex.ids_of", timeout))
        ids: np.ndarray[Any, np.dtype[np.int64]] = np.max(list(found.values()), axis=0)
        return ids

    def keys_of(self, ids: Any, *, timeout: float | None = None) -> np.ndarray[Any, np.dtype[Any]]:
        """The keys of these ids, objects of their shape; None where no code has the id, or codes have no keys."""
        numbers = to_tensor(ids, "ShardedIndex.keys_of", "ids").cpu().numpy()
        keys = np.full(numbers.size, None, object)
        found, _ = self._ask("keys_of", (numbers.reshape(-1),), self._call("ShardedIndex.keys_of", timeout))
        for own in found.values():
            keys[own != None] = own[own != None]  # noqa: E711  (elementwise)
        return keys.reshape(numbers.shape)

    def stats(self, *, timeout: float | None = None) -> list[ShardStats]:
        """Figures of each replica of each shard; those that give none say why in `error`, so that this never fails."""
        call, found = self._call("ShardedIndex.stats", timeout, "allow"), []
        asked = {
            (shard, replica): self._shards.replica(shard, replica).ask("stats", {0: (self._state(shard),)}, call)
            for shard, own in enumerate(self._shards.replicas)
            for replica in range(len(own))
        }
        for (shard, replica), own in asked.items():
            answers, missing = own.answers()
            told = answers.get(0, {"codes": 0, "segments": 0, "searches": 0, "host": "", "process": 0})
            found.append(
                ShardStats(self._shards.names[shard], replica, **told, error="; ".join(missing.values()))
            )  # fmt: skip
        return found

    def refresh(self, *, timeout: float | None = None) -> bool:
        """Sees what a writer has changed in the folders since; gives whether there was anything.

        An index folder's segments are shared out again. Searches under way end on the state that they began with.
        """
        call = self._call("ShardedIndex.refresh", timeout)
        with self._alone(call):
            before = list(self._facts), self._segments
            if self._segments is not None:
                self._segments = shared_out(self._source.folders[0], self._source.parts)
            self._learn(call)
            return before != (list(self._facts), self._segments)

    def verify(self, *, timeout: float = math.inf) -> None:
        """Reads every byte of the folders; raises ShardError, which names the damaged ones and the faults."""
        call = self._call("ShardedIndex.verify", timeout, "allow")
        which = None if self._segments is None else [0]  # one folder is read once
        _, missing = self._ask("verify", (), call, which, writer=True)
        if missing:
            raise shard_error(call.function, missing, len(self._shards), call.left == 0)

    # Searching it

    def search(
        self,
        queries: Any,
        k: int,
        filter: Any = None,
        rescore: int | str = 0,
        *,
        metric: str = "l1",
        timeout: float | None = None,
        partial: str = "refuse",
    ) -> SearchResult:
        """The k nearest codes of each query, as `HammingIndex.search` gives them.

        queries, k, filter, rescore, metric: as there. A boolean filter needs the ids of all shards, 8 bytes a code in
        each call; an array of ids needs none. timeout: seconds for the whole call; None: those of the index. partial:
        "refuse" raises ShardError where a shard has no answer (ShardTimeout at the deadline); "allow" gives the nearest
        codes of the other shards, and `missing` of the result names those that are missing, and why. Queries go to the
        shards in batches, of which the next is searched while one is merged; a shard sends 12 bytes a result. Raises
        ValueError or TypeError as there.
        """
        call = self._call("ShardedIndex.search", timeout, partial)
        with own_name():
            nothing = self._model.search(queries, k, None, rescore, metric=metric)
        everything, factor = rescore == "all", 0 if rescore == "all" else int(rescore)
        missing_distance = math.inf if everything else largest_distance(self.bits, self._model._weights) + 1
        allowed = self._allowed(filter, call)
        extra: tuple[Any, ...]
        if factor:
            method, extra = "candidates", (k * factor, allowed)
        else:
            method, extra = "search", (k, allowed, rescore, metric)
        rows, dtype = _rows(queries), to_tensor(nothing.distances).dtype
        found, missing = [], dict[str, str]()
        for count, answers, late in self._pipelined(method, rows, extra, k * max(factor, 1), call):
            missing |= late
            with memory_for(f"{call.function}: no memory for the results of {len(rows)} queries"):
                own = [_candidates(answers, k * factor)] if factor and answers else answers
                distances = torch.cat([torch.empty((count, 0), dtype=dtype), *(part[0] for part in own)], 1)
                ids = torch.cat([torch.empty((count, 0), dtype=torch.int64), *(part[1] for part in own)], 1)
                found.append(merged_topk(distances, ids, k, missing_distance))
        fields = [torch.cat(parts) for parts in zip(*found, strict=True)] if found else nothing
        told: SearchResult = self._told(ShardedSearchResult, fields, queries, missing)
        return told

    def range_search(
        self,
        queries: Any,
        radius: int,
        filter: Any = None,
        *,
        timeout: float | None = None,
        partial: str = "refuse",
    ) -> RangeResult:
        """All codes within `radius` of each query, as `HammingIndex.range_search` gives them; the rest as `search`."""
        call = self._call("ShardedIndex.range_search", timeout, partial)
        with own_name():
            nothing = self._model.range_search(queries, radius)
        allowed = self._allowed(filter, call)
        radius = min(radius, largest_distance(self.bits, self._model._weights))
        counts, distances, ids = [torch.zeros(1, dtype=torch.int64)], [], []
        missing = dict[str, str]()
        for count, answers, late in self._pipelined("range_search", _rows(queries), (radius, allowed), 1, call):
            missing |= late
            if answers:
                found = combined_ranges([RangeResult(*own) for own in answers], radius, ordered=False)
                distances.append(found.distances)
                ids.append(found.ids)
            counts.append(found.offsets.diff() if answers else torch.zeros(count, dtype=torch.int64))
        fields = (torch.cat(counts).cumsum(0), torch.cat(distances), torch.cat(ids)) if ids else nothing
        told: RangeResult = self._told(ShardedRangeResult, fields, queries, missing)
        return told

    def _pipelined(
        self, method: str, rows: Tensor, extra: tuple[Any, ...], columns: int, call: Call
    ) -> Iterator[tuple[int, list[tuple[Tensor, ...]], dict[str, str]]]:
        """Sends queries to all shards, by batches; some are always under way.

        Gives of each batch how many queries it has, the shards' answers, and which shards are missing.
        """
        size = max(1, min(_BATCH, _BATCH_RESULTS // columns))
        waiting: deque[tuple[int, Asked]] = deque()
        try:
            for start in range(0, len(rows), size):
                batch = rows[start : start + size]
                arguments = (self._shared(batch.numpy(), call), *extra)
                asked = self._send(method, dict.fromkeys(range(len(self._shards)), arguments), call)
                waiting.append((len(batch), asked))
                if len(waiting) > _AHEAD:
                    yield _answered(*waiting.popleft())
            while waiting:
                yield _answered(*waiting.popleft())
        finally:
            for _, asked in waiting:
                asked.cancel()

    def _told(self, kind: Any, fields: Any, queries: Any, missing: Mapping[str, str]) -> Any:
        """A result as the kind that the queries are, on their device."""
        tensors = [to_tensor(field) for field in fields]
        if isinstance(queries, Tensor):
            result = kind(*(field.to(queries.device) for field in tensors))
        else:
            result = kind(*(like(field, queries) for field in tensors))
        result.missing = dict(missing)
        if any(fact.keyed for fact in self._facts if fact is not None):
            result._keys_of = self.keys_of
        return result

    def __enter__(self) -> ShardedIndex:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _rows(queries: Any) -> Tensor:
    """Queries, which are known to be right, on the CPU, as numpy has them: bfloat16 as float32."""
    rows = to_tensor(queries).detach().cpu()
    rows = rows[None] if rows.ndim == 1 else rows
    return rows.float() if rows.dtype == torch.bfloat16 else rows


def _answered(count: int, asked: Asked) -> tuple[int, list[tuple[Tensor, ...]], dict[str, str]]:
    answers, missing = asked.answers()
    return count, [tuple(torch.from_numpy(np.array(part)) for part in own) for own in answers.values()], missing


def _candidates(found: Sequence[tuple[Tensor, ...]], count: int) -> tuple[Tensor, Tensor]:
    """The `count` nearest candidates of all shards, as one index has them: their asymmetric distances and ids."""
    distances, ids, exact = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
    distances = distances.masked_fill(ids < 0, torch.iinfo(distances.dtype).max)
    chosen = nearest_first(distances, ids, count)
    return exact.gather(1, chosen), ids.gather(1, chosen)
