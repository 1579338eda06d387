"""The results of a ShardedIndex: those of a HammingIndex, which also say what is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from fasthash.hamming import RangeResult, SearchResult


class _Sharded:
    """missing: the shards that gave no answer, and why; empty unless partial="allow" let some be missing."""

    ids: Any
    missing: Mapping[str, str] = {}
    _keys_of: Callable[[Any], Any] | None = None

    @cached_property
    def keys(self) -> Any:
        """The key of each id where the index has keys, asked for when first used; else None."""
        return None if self._keys_of is None else self._keys_of(self.ids)

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (type(self), tuple(self), self.missing, self.keys)  # type: ignore[arg-type]


class ShardedSearchResult(_Sharded, SearchResult):
    """A SearchResult of a ShardedIndex."""


class ShardedRangeResult(_Sharded, RangeResult):
    """A RangeResult of a ShardedIndex."""


def _made(kind: Any, fields: tuple[Any, ...], missing: Mapping[str, str], keys: Any) -> Any:
    result = kind(*fields)
    result.missing, result.keys = missing, keys
    return result
