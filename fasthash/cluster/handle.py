"""What a ShardedIndex knows of its shards: where they are, what they hold, and how they are asked."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from fasthash._arguments import choice, refuse_zeros_and_ones, whole
from fasthash._arrays import to_tensor
from fasthash.cluster.actors import Actors
from fasthash.cluster.asking import Asked, Call, Shards
from fasthash.cluster.engine import ray_for
from fasthash.cluster.errors import ShardTimeout, shard_error
from fasthash.cluster.shard import Facts, Place, State
from fasthash.index import HammingIndex, IndexFolderError
from fasthash.index.key_texts import is_text
from fasthash.index.segments import id_tensor
from fasthash.index.split import segment_rows
from fasthash.index.store import shard_list
from fasthash.index.store.manifest import MANIFEST

_PUT_BYTES = 100_000  # of an argument that goes to the object store once, not into the message to each shard
_START_SECONDS = 120.0  # that actors have at least to start and to open their folders
_READ_ONLY = "the index is open for reading; open it with writable=True"
_COPY = "this is a copy of a ShardedIndex and only searches; change the index in the process that opened it"


class Source(NamedTuple):
    """The folders of the shards; where they are segments of one folder, how many shards, else 0."""

    folders: tuple[Path, ...]
    parts: int


class Handle:
    """The shards of an index, open until `close`. Copies (by pickle) ask the same actors."""

    def __init__(
        self,
        source: Source,
        writable: bool,
        replicas: int,
        threads: int,
        device: str,
        method: str,
        timeout: float,
        options: Any,
        function: str,
    ):
        self._source, self._timeout = source, timeout
        self._frozen = "" if writable else _READ_ONLY
        self._changing = threading.RLock()
        names = [str(folder) for folder in source.folders]
        self._segments: list[tuple[str, ...]] | None = None
        if source.parts:
            names = [f"shard {number} of {names[0]}" for number in range(source.parts)]
            self._segments = shared_out(source.folders[0], source.parts)
        folders = source.folders * source.parts if source.parts else source.folders
        self._places = [Place(str(folder), writable, device, method, threads) for folder in folders]
        actors = Actors(self._places, replicas, _options(options, len(names), function), function)
        self._end = weakref.finalize(self, actors.close)
        self._shards = Shards(names, actors.handles)
        self._facts: list[Facts | None] = [None] * len(names)  # None: a shard that has not answered yet
        try:
            self._learn(self._call(function, max(timeout, _START_SECONDS), "allow"))
        except BaseException:
            self._end()
            raise
        known = next(fact for fact in self._facts if fact is not None)
        self._model = HammingIndex(known.bits, bit_weights=list(known.bit_weights) or None)  # empty: checks arguments

    def close(self) -> None:
        """Ends the actors, which gives up the locks of the folders. A copy has nothing to close."""
        if self._end is not None and self._end.alive:
            with contextlib.suppress(Exception):  # an actor that is gone has no lock
                self._ask("close", (), self._call("ShardedIndex.close", 5.0, "allow"))
            self._end()

    # Asking

    @contextlib.contextmanager
    def _alone(self, call: Call) -> Iterator[None]:
        """One change or join at a time; raises ShardTimeout where another one takes until the deadline."""
        if not self._changing.acquire(timeout=-1 if call.left is None else call.left):
            raise ShardTimeout(f"{call.function}: another change was still running after {call.timeout:g} s", {})
        try:
            yield
        finally:
            self._changing.release()

    def _call(self, function: str, timeout: float | None, partial: str = "refuse") -> Call:
        seconds = self._timeout if timeout is None else seconds_of(timeout, function)
        wants_part = choice(partial, function, "partial", ("refuse", "allow")) == "allow"
        return Call(function, None if math.isinf(seconds) else seconds, wants_part)

    def _send(
        self,
        method: str,
        arguments: Mapping[int, tuple[Any, ...]],
        call: Call,
        writer: bool = False,
    ) -> Asked:
        """Asks some shards, without waiting: each about its state as it is known here."""
        stated = {shard: (self._state(shard), *own) for shard, own in arguments.items()}
        return self._shards.ask(method, stated, call, writer)

    def _ask(
        self,
        method: str,
        arguments: tuple[Any, ...],
        call: Call,
        shards: Collection[int] | None = None,
        writer: bool = False,
    ) -> tuple[dict[int, Any], dict[str, str]]:
        """Asks shards (None: all) the same, and waits for the answers; also says which are missing, and why."""
        numbers = range(len(self._shards)) if shards is None else shards
        return self._send(method, dict.fromkeys(numbers, arguments), call, writer).answers()

    def _state(self, shard: int) -> State:
        fact = self._facts[shard]
        segments = None if self._segments is None else self._segments[shard]
        return State(segments, 0 if fact is None else fact.generation)

    def _shared(self, array: Any, call: Call) -> Any:
        """An argument for several shards: a reference to the one copy in the object store, where it is large."""
        if isinstance(array, np.ndarray) and array.nbytes > _PUT_BYTES and array.dtype != object:
            return ray_for(call.function).put(array)
        return array

    def _allowed(self, filter: Any, call: Call) -> Any:
        """A filter as shards take it: ids or keys; an array that is large, once for all of them."""
        if filter is None:
            return None
        if is_text(filter):
            return list(filter)
        given = to_tensor(filter, call.function, "filter").cpu()
        if given.dtype != torch.bool:
            refuse_zeros_and_ones(given, call.function)
            return self._shared(id_tensor(given, call.function, "filter").numpy(), call)
        ids = self._ids(call)
        if given.shape != ids.shape:
            raise ValueError(
                f"{call.function}: a boolean filter must have one value for each of the {len(ids)} ids, "
                f"got shape {tuple(given.shape)}"
            )
        return self._shared(ids[given.numpy()], call)

    def _ids(self, call: Call) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The live ids of all shards, ascending."""
        found, _ = self._ask("ids", (), call.complete())
        return np.sort(np.concatenate(list(found.values())))

    def _learn(self, call: Call, shards: Iterable[int] | None = None) -> None:
        """Asks what shards (None: all) hold. Raises IndexFolderError where their codes do not belong together."""
        answers, missing = self._ask("facts", (), call, None if shards is None else list(shards))
        for shard, own in answers.items():
            before = self._facts[shard]
            given = 0 if before is None else before.next_id  # perhaps to codes that are still on their way
            self._facts[shard] = own._replace(next_id=max(own.next_id, given))
        known = [(fact, name) for fact, name in zip(self._facts, self._shards.names, strict=True) if fact is not None]
        if not known:
            raise shard_error(call.function, missing, len(self._shards), False)
        for what in ("bits", "bit_weights"):
            for own, name in known:
                here, first = getattr(own, what), getattr(known[0][0], what)
                if here != first:
                    raise IndexFolderError(f"{name}: its {what} are {here}, those of {known[0][1]} are {first}")

    def _known(self, call: Call, needed: str) -> list[Facts]:
        """The content of all shards. Asks shards again if it is unknown; raises ShardError if one does not answer."""
        unknown = [shard for shard, fact in enumerate(self._facts) if fact is None]
        if unknown:
            self._learn(call, unknown)
        found = [fact for fact in self._facts if fact is not None]
        if len(found) < len(self._facts):
            names = [name for name, fact in zip(self._shards.names, self._facts, strict=True) if fact is None]
            raise shard_error(call.function, dict.fromkeys(names, needed), len(self._shards), False)
        return found

    def __getstate__(self) -> dict[str, Any]:
        own = {name: value for name, value in self.__dict__.items() if name not in ("_changing", "_end")}
        return {**own, "_frozen": _COPY}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _changing=threading.RLock(), _end=None)


def parse_source(source: Any, shards: int | None, writable: bool, function: str) -> Source:
    """The folders that a user names: one index, one that `split` made, or a list of index folders."""
    if isinstance(source, (list, tuple)):
        folders = tuple(Path(folder).absolute() for folder in source)
        if not 1 <= len(folders) <= shard_list.MOST_SHARDS:
            raise ValueError(f"{function}: source must be 1 to {shard_list.MOST_SHARDS} folders, got {len(folders)}")
        if len(set(folders)) != len(folders):
            raise ValueError(f"{function}: a folder can be one shard only, got one twice")
    else:
        path = Path(os.fspath(source)).absolute()
        if (path / MANIFEST).exists() and not (path / shard_list.SHARDS).exists():
            if writable:
                raise ValueError(
                    f"{function}: {path} is one index and cannot be opened for writing; split it with "
                    "HammingIndex.split, and open its shards"
                )
            return Source((path,), _parts(path, shards, function))
        folders = tuple(shard_list.read(path))
    if shards is not None:
        raise ValueError(
            f"{function}: shards needs one index folder, got {len(folders)} folders, where each folder is one shard"
        )
    return Source(folders, 0)


def shared_out(path: Path, parts: int) -> list[tuple[str, ...]]:
    """The segments of an index as it is now, the largest first to the part that has the fewest codes."""
    sizes, shares = [0] * parts, [list[str]() for _ in range(parts)]
    rows = segment_rows(HammingIndex.open(path, method="scan")._contents)
    for name, count in sorted(rows.items(), key=lambda item: (-item[1], item[0])):
        least = sizes.index(min(sizes))
        sizes[least] += count
        shares[least].append(name)
    return [tuple(share) for share in shares]


def seconds_of(timeout: Any, function: str) -> float:
    """A deadline in seconds; infinity is none."""
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float, np.integer, np.floating)) or not timeout > 0:
        raise ValueError(f"{function}: timeout must be seconds > 0 (math.inf: no limit), got {timeout!r}")
    return float(timeout)


@contextlib.contextmanager
def own_name() -> Iterator[None]:
    """Errors of the empty index that checks arguments, in the name of the ShardedIndex."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise type(error)(str(error).replace("HammingIndex", "ShardedIndex", 1)) from None


def _parts(path: Path, shards: int | None, function: str) -> int:
    segments = len(segment_rows(HammingIndex.open(path, method="scan")._contents))
    if shards is None:
        return max(segments, 1)
    parts = whole(shards, function, "shards", 1)
    if parts > max(segments, 1):
        raise ValueError(
            f"{function}: shards must be at most the {segments} segments of {path}, got shards={parts}; "
            "HammingIndex.split makes any number of shards"
        )
    return parts


def _options(given: Any, shards: int, function: str) -> list[Mapping[str, Any]]:
    """Ray's options for the actors of each shard."""
    options = [given or {}] * shards if given is None or isinstance(given, Mapping) else list(given)
    if len(options) != shards or not all(isinstance(own, Mapping) for own in options):
        raise ValueError(f"{function}: options must be a dict, or one for each of the {shards} shards, got {given!r}")
    return options
