"""What runs in the actor of a shard: one HammingIndex, whole or some of its segments. It knows no ray."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from fasthash._durable import LockedError
from fasthash.codes import code_bytes
from fasthash.index import HammingIndex, IndexFolderError
from fasthash.index.split import frozen, only
from fasthash.index.store.manifest import current_manifest

_LOCK_SECONDS = 20.0  # that a new writer waits for the death of the one before
_LOCK_PAUSE = 0.1
_Read = TypeVar("_Read")


class Place(NamedTuple):
    """Where a shard is, and how it is searched."""

    path: str
    writable: bool = False
    device: str = "cpu"
    method: str = "auto"
    threads: int = 1


class State(NamedTuple):
    """What of the folder a call is about.

    segments: the names of some segments; None: all that there are. generation: of the manifest, as the caller knows it;
    a reader that is older reads the folder again.
    """

    segments: tuple[str, ...] | None
    generation: int


class Facts(NamedTuple):
    """The content of a shard."""

    bits: int
    bit_weights: tuple[tuple[int, int], ...]
    keyed: bool
    scaled: bool
    next_id: int
    codes: int
    generation: int  # of the manifest, or a later one; 0 where the shard is some segments


class Shard:
    """One shard, for calls from several threads. Nothing is opened before the first call.

    So a damaged folder is an error of the calls, which name it, and a repaired one is found.
    """

    def __init__(self, place: Place):
        self._place = place
        self._opening = threading.Lock()
        self._whole: HammingIndex | None = None
        self._generation = 0
        self._views: dict[tuple[str, ...], HammingIndex] = {}
        self._searches = 0

    # Reading

    def facts(self, state: State) -> Facts:
        """What it holds now: a reader looks at the folder again."""
        if state.segments is None and not self._place.writable:
            state = state._replace(generation=current_manifest(Path(self._place.path)).generation)
        index = self._index(state)
        contents, weights = index._contents, tuple(index.bit_weights or ())
        generation = self._generation if state.segments is None else 0
        return Facts(
            index.bits, weights, contents.keyed, contents.scaled, contents.next_id, contents.size, generation
        )  # fmt: skip

    def stats(self, state: State) -> dict[str, Any]:
        """Figures of this replica."""
        index = self._index(state)
        return {
            "codes": len(index),
            "segments": len(index._contents.segments),
            "searches": self._searches,
            "host": socket.gethostname(),
            "process": os.getpid(),
        }

    def search(self, state: State, queries: Any, k: int, filter: Any, rescore: Any, metric: str) -> tuple[Any, ...]:
        """distances [Q, k] and ids [Q, k], as of HammingIndex.search."""
        self._searches += 1
        return tuple(self._index(state).search(queries, k, filter, rescore, metric=metric))

    def candidates(self, state: State, queries: Any, count: int, filter: Any) -> tuple[Any, ...]:
        """The `count` nearest codes of real-valued queries: distances, ids and asymmetric distances, [Q, count]."""
        self._searches += 1
        index = frozen(self._index(state))
        distances, ids = index.search(queries, min(count, max(len(index), 1)), filter)
        there = ids >= 0
        codes = np.zeros((*ids.shape, code_bytes(index.bits)), np.uint8)
        codes[there] = index.get(ids[there])
        exact = torch.ops.fasthash.asymmetric_distances(
            torch.from_numpy(np.array(queries)), torch.from_numpy(codes), index._weights
        )
        return distances, ids, exact.numpy()

    def range_search(self, state: State, queries: Any, radius: int, filter: Any) -> tuple[Any, ...]:
        """offsets, distances and ids, as of HammingIndex.range_search."""
        self._searches += 1
        return tuple(self._index(state).range_search(queries, radius, filter))

    def ids(self, state: State) -> Any:
        """The live ids, ascending."""
        return self._index(state).ids

    def codes_of(self, state: State, ids: Any, keys: Any) -> tuple[Any, Any]:
        """Which of some ids, or keys, are here, booleans [M], and their codes in order."""
        index = frozen(self._index(state))
        numbers = torch.from_numpy(np.array(index.ids_of(keys) if ids is None else ids))
        codes, found = index._contents.codes_of(numbers, code_bytes(index.bits))
        return found.numpy(), codes[found].numpy()

    def held(self, state: State, ids: Any, keys: Any) -> Any:
        """Those of some ids, or the ids of those of some keys, that are here: distinct, ascending."""
        index = frozen(self._index(state))
        if ids is None:
            numbers = index.ids_of(keys)
            return np.unique(numbers[numbers >= 0])
        numbers = np.unique(ids)
        return numbers[index._contents.codes_of(torch.from_numpy(numbers), code_bytes(index.bits))[1].numpy()]

    def keys_of(self, state: State, ids: Any) -> Any:
        """The keys of ids [M], None where the code is not here."""
        return self._index(state).keys_of(ids)

    def ids_of(self, state: State, keys: Any) -> Any:
        """The ids of keys [M], -1 where the code is not here."""
        return self._index(state).ids_of(keys)

    def verify(self, state: State) -> None:
        """Reads every byte of the folder; raises IndexFolderError for the first fault."""
        self._index(state).verify()

    # Changing, in the one writable replica

    def add(self, state: State, codes: Any, ids: Any, keys: Any, code_scale: Any) -> int:
        """Adds codes with ids (a number: from there on) that no shard had when the caller asked; gives the generation.

        It may be called again after a crash: if codes with all these ids are here, the first call has added them.
        """
        index = self._index(state)
        numbers = np.arange(ids, ids + len(codes)) if isinstance(ids, int) else np.array(ids)
        there, found = index._contents.codes_of(torch.from_numpy(numbers), code_bytes(index.bits))
        if not (bool(found.all()) and np.array_equal(there.numpy(), codes)):
            scale = None if code_scale is None else np.array(code_scale)
            index.add(np.array(codes), numbers, keys=keys, code_scale=scale)
        return self._changed()

    def remove(self, state: State, ids: Any) -> int:
        """Removes the codes of these ids, and gives the generation."""
        self._index(state).remove(np.array(ids))
        return self._changed()

    def _changed(self) -> int:
        self._generation = current_manifest(Path(self._place.path)).generation
        return self._generation

    def close(self, state: State) -> None:
        """Gives up the folder's lock."""
        with self._opening:
            if self._whole is not None:
                self._whole.close()

    def _index(self, state: State) -> HammingIndex:
        """The index in the state that a call asks for, or a later one."""
        if torch.get_num_threads() != self._place.threads:  # each thread of an actor has a number of its own
            torch.set_num_threads(self._place.threads)
        with self._opening:
            if state.segments is not None:
                return self._view(state.segments)
            if self._whole is None:
                self._whole = self._read(self._opened)
            elif not self._place.writable and state.generation > self._generation:
                self._read(self._whole.refresh)
            return self._whole

    def _read(self, read: Callable[[], _Read]) -> _Read:
        """Reads the folder; what is read is of the generation that is noted, or a later one."""
        generation = current_manifest(Path(self._place.path)).generation
        result = read()
        self._generation = generation
        return result

    def _view(self, segments: tuple[str, ...]) -> HammingIndex:
        if segments not in self._views:
            index = opened(self._place, segments)
            while len(self._views) > 1:  # calls of the state before the last refresh may be under way
                self._views.pop(next(iter(self._views)))
            self._views[segments] = index
        return self._views[segments]

    def _opened(self) -> HammingIndex:
        begin = time.monotonic()
        while True:
            try:
                return opened(self._place, None)
            except IndexFolderError as error:
                if not isinstance(error.__cause__, LockedError) or time.monotonic() - begin > _LOCK_SECONDS:
                    raise
                time.sleep(_LOCK_PAUSE)


def opened(place: Place, segments: tuple[str, ...] | None) -> HammingIndex:
    """The index of a place, or some segments of it."""
    index = HammingIndex.open(place.path, writable=place.writable, method=place.method, device=place.device)
    if segments is not None:
        index._contents = only(index._contents, segments, Path(place.path))
    return index
