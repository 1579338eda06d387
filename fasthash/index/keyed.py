"""What an index with keys does beside one without: checks of new keys, keys as ids, and results that have keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from fasthash._arrays import like, to_tensor
from fasthash.hamming import RangeResult, SearchResult
from fasthash.index.key_texts import is_text, key_rows
from fasthash.index.keys import KeyRows, repeated_key, shown
from fasthash.index.segments import Contents, Segment, id_tensor
from fasthash.pairs import Pairs

_Result = TypeVar("_Result", SearchResult, RangeResult)
KeysOf = Callable[[Any], Any]  # ids of any shape -> their keys


class Keyed:
    """Adds `keys` to a result, objects in the places of its ids. They are read at the first access."""

    ids: Any
    _fields: Any
    _keys_of: KeysOf

    @classmethod
    def of(cls, found: Any, keys_of: KeysOf) -> Any:
        """The result, and what gives the keys of its ids."""
        result: Any = cls(*found)
        result._keys_of = keys_of
        return result

    @cached_property
    def keys(self) -> Any:
        """The key of each id; None where the id is -1."""
        return self._keys_of(self.ids)

    def __repr__(self) -> str:
        fields = [f"{name}={getattr(self, name)!r}" for name in (*self._fields, "keys")]
        return f"{type(self).__name__.removeprefix('Keyed')}({', '.join(fields)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _with_read_keys, (type(self), tuple(self), self.keys)  # type: ignore[arg-type]

    def _replace(self, **fields: Any) -> Any:
        other = super()._replace(**fields)  # type: ignore[misc]
        other._keys_of = self._keys_of
        return other


class KeyedSearchResult(Keyed, SearchResult):
    """A SearchResult of an index with keys."""


class KeyedRangeResult(Keyed, RangeResult):
    """A RangeResult of an index with keys."""


class KeyedPairs(Pairs):
    """Pairs of codes where one side has keys, or both: `keys_a` and `keys_b` are read when they are first asked for."""

    _texts: tuple[KeysOf | None, KeysOf | None]

    @classmethod
    def of(cls, found: Pairs, texts: tuple[KeysOf | None, KeysOf | None]) -> KeyedPairs:
        """Pairs, and what gives the keys of each side's ids (None: it has none)."""
        pairs = cls(*found)
        pairs._texts = texts
        return pairs

    @cached_property
    def keys_a(self) -> Any:
        """The key of each of ids_a, objects [T]; None where that side has no keys."""
        return self._texts[0] and self._texts[0](self.ids_a)

    @cached_property
    def keys_b(self) -> Any:
        """The key of each of ids_b, objects [T]; None where that side has no keys."""
        return self._texts[1] and self._texts[1](self.ids_b)

    def __repr__(self) -> str:
        fields = [f"{name}={getattr(self, name)!r}" for name in (*self._fields, "keys_a", "keys_b")]
        return f"Pairs({', '.join(fields)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _with_read_pairs, (tuple(self), self.keys_a, self.keys_b)

    def _replace(self, **fields: Any) -> Any:
        return KeyedPairs.of(super()._replace(**fields), self._texts)


@dataclass(frozen=True, eq=False)
class StoredKeys:
    """The keys of ids, read from the contents of an index when they are asked for."""

    contents: Contents
    device: torch.device

    def __call__(self, ids: Any) -> np.ndarray[Any, np.dtype[Any]]:
        """ids of any shape -> their keys, objects; None where no code has the id."""
        return self.contents.keys_of_ids(to_tensor(ids).to(self.device))

    def lengths(self, ids: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
        """ids [M] -> the bytes of their keys, int64 [M]."""
        return self.contents.key_lengths(to_tensor(ids).to(self.device))


_KEYED: dict[type, Any] = {SearchResult: KeyedSearchResult, RangeResult: KeyedRangeResult}


def told(
    found: _Result, queries: Any, contents: Contents, device: torch.device, before_use: Callable[[], None]
) -> _Result:
    """A result as the kind that the queries are, on their device, and with keys where the contents have some.

    Keys are read when they are first asked for; before_use lets the device's current stream read the contents then.
    """
    kind: Any = _KEYED[type(found)] if contents.keyed else type(found)
    if isinstance(queries, Tensor):
        result = kind(*(field.to(queries.device) for field in found))
    else:
        result = kind(*(like(field, queries) for field in found))
    if contents.keyed:

        def keys_of(ids: Any) -> Any:
            before_use()
            return contents.keys_of_ids(to_tensor(ids).to(device))

        result._keys_of = keys_of
    return result  # type: ignore[no-any-return]


def _with_read_keys(kind: Any, fields: tuple[Any, ...], keys: Any) -> Any:
    result = kind(*fields)
    result.keys = keys
    return result


def _with_read_pairs(fields: tuple[Any, ...], keys_a: Any, keys_b: Any) -> KeyedPairs:
    pairs = KeyedPairs.of(Pairs(*fields), (None, None))
    pairs.keys_a, pairs.keys_b = keys_a, keys_b
    return pairs


def parse_new_keys(contents: Contents, keys: Any, count: int, function: str) -> KeyRows | None:
    """The keys of `count` new codes; raises ValueError where there must be some, or must be none, or not as many."""
    if keys is None:
        if contents.keyed and count:
            raise ValueError(f"{function}: the index has keys, so {count} codes need keys=, got None")
        return None
    if contents.size and not contents.keyed:
        raise ValueError(f"{function}: the {contents.size} codes of the index have no keys, so keys must be None")
    named = key_rows(keys, function)
    if named.size != count:
        raise ValueError(f"{function}: {count} codes need {count} keys, got {named.size}")
    return named


def replaced_ids(
    contents: Contents, new: Segment, named: KeyRows | None, replace: bool, device: torch.device, function: str
) -> Tensor:
    """The ids of codes whose keys new codes have too; raises ValueError for repeated keys, and for taken ones.

    new: the segment of the new codes. named: their keys. replace: taken keys are no error.
    """
    if named is None or new.keys is None:
        return torch.empty(0, dtype=torch.int64, device=device)
    repeated = repeated_key([(new.keys, None)])
    if repeated is not None:
        raise ValueError(f"{function}: keys must be distinct, got {shown(repeated)} more than once")
    ids = contents.ids_of_keys(named, device)
    taken = (ids >= 0).nonzero()[:, 0]
    if len(taken) and not replace:
        key = named.shown(int(taken[0]))
        raise ValueError(f"{function}: key {key} is in the index already; replace=True replaces it")
    return ids[taken]


def known_keys(contents: Contents, keys: Any, device: torch.device, function: str) -> tuple[Tensor, KeyRows]:
    """The id of each key that a user asks for, -1 where no code has it, and the keys; ValueError without keys."""
    if not contents.keyed and contents.size:
        raise ValueError(f"{function}: the codes of the index have no keys, keys must be None")
    named = key_rows(keys, function)
    return contents.ids_of_keys(named, device), named


def asked_ids(
    contents: Contents, ids: Any, keys: Any, device: torch.device, function: str
) -> tuple[Tensor, KeyRows | None]:
    """What a user gives as ids or as keys: ids on the device of the codes, -1 for an unknown key; and the keys."""
    if (ids is None) == (keys is None):
        raise ValueError(f"{function}: either ids or keys must be given, got {'none' if ids is None else 'both'}")
    if keys is None:
        return id_tensor(ids, function).to(device), None
    return known_keys(contents, keys, device, function)


def refuse_unknown(wanted: Tensor, named: KeyRows | None, found: Tensor, function: str) -> None:
    """Raises KeyError, naming the first, where codes of ids, or of keys, were not found."""
    if found.all():
        return
    unknown = (~found).nonzero()[:, 0].tolist()
    what, kind = f"id {int(wanted[unknown[0]])}", "ids"
    if named is not None:
        what, kind = f"key {named.shown(unknown[0])}", "keys"
    raise KeyError(f"{function}: no code has {what} ({len(unknown)} of {len(found)} {kind} are unknown)")


def filter_of_ids(contents: Contents, filter: Any, device: torch.device, function: str) -> Any:
    """A filter as it is, or as ids where it is one of keys; unknown keys are ignored."""
    if filter is None or not is_text(filter):
        return filter
    if not contents.keyed and contents.size:
        raise ValueError(f"{function}: the codes of the index have no keys, filter must be ids or a mask, got texts")
    ids, _ = known_keys(contents, filter, device, function)
    return np.unique(ids[ids >= 0].cpu().numpy())
