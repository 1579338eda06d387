"""The errors of an index whose shards do not all answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ShardError(RuntimeError):
    """Some shards gave no answer, so there is none. `missing` has their names, and why each is missing."""

    def __init__(self, message: str, missing: Mapping[str, str]):
        super().__init__(message)
        self.missing = dict(missing)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.missing)


class ShardTimeout(ShardError, TimeoutError):
    """The deadline passed before all shards had answered."""


def shard_error(function: str, missing: Mapping[str, str], shards: int, late: bool, more: str = "") -> ShardError:
    """The error of a call that needs all shards. late: the deadline passed. more: what it means for the caller."""
    reasons = "; ".join(f"{name}: {why}" for name, why in list(missing.items())[:3])
    others = f"; and {len(missing) - 3} more" if len(missing) > 3 else ""
    message = f"{function}: no answer from {len(missing)} of {shards} shards ({reasons}{others}){more}"
    return (ShardTimeout if late else ShardError)(message, missing)
