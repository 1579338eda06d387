"""Asking the actors of the shards: another replica where one fails, a deadline, and which shards gave no answer.

Ray restarts actors and repeats calls. Here is only what it does not know: that a replica can answer for another.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fasthash.cluster.engine import ray_for
from fasthash.cluster.errors import shard_error
from fasthash.index import IndexFolderError

_PAUSE = 0.05  # seconds, after all replicas of a shard have failed
_TRIES = 10  # where Ray loses an answer, and not its actor


class Shards:
    """The actors of an index: `replicas[shard]` are the handles of one shard, the writable one first."""

    def __init__(self, names: Sequence[str], replicas: Sequence[Sequence[Any]]):
        self.names, self.replicas = list(names), [list(own) for own in replicas]
        self._turn = itertools.count()

    def __len__(self) -> int:
        return len(self.names)

    def replica(self, shard: int, replica: int) -> Shards:
        """One replica of one shard, by itself."""
        return Shards([self.names[shard]], [[self.replicas[shard][replica]]])

    def ask(self, method: str, arguments: Mapping[int, tuple[Any, ...]], call: Call, writer: bool = False) -> Asked:
        """Calls a method of the actors of some shards: number of the shard -> arguments. writer: of the first replica.

        Nothing is waited for.
        """
        return Asked(self, method, arguments, call, next(self._turn), writer)


class Call:
    """One call of a user: its name, its deadline, and whether a part of an answer is welcome."""

    def __init__(self, function: str, timeout: float | None, partial: bool = False):
        self.function, self.timeout, self.partial = function, timeout, partial
        self._end = None if timeout is None else time.monotonic() + timeout

    def complete(self) -> Call:
        """The same call for what must be complete."""
        other = copy.copy(self)
        other.partial = False
        return other

    @property
    def left(self) -> float | None:
        """Seconds to the deadline, None where there is none."""
        return None if self._end is None else max(self._end - time.monotonic(), 0.0)


class Asked:
    """A question to several shards, under way."""

    def __init__(
        self, shards: Shards, method: str, arguments: Mapping[int, tuple[Any, ...]], call: Call, turn: int, writer: bool
    ):
        self._shards, self._method, self._arguments, self._call = shards, method, arguments, call
        self._turn, self._writer = turn, writer
        self._ray = ray_for(call.function)
        self._refs: dict[Any, tuple[int, int, int]] = {}  # reference -> (shard, replica, how many tries before)
        self._gone: dict[int, set[int]] = {shard: set() for shard in arguments}  # replicas that cannot answer
        for shard in arguments:
            self._send(shard, 0)

    def answers(self, more: str = "") -> tuple[dict[int, Any], dict[str, str]]:
        """Waits: the answers by shard, and the names of the shards that gave none, with the reason.

        Raises ShardError (ShardTimeout) as soon as a shard is missing, unless the call is partial; `more` is added to
        its message. A ValueError, TypeError or KeyError that a shard raises is the caller's mistake, and raised here.
        """
        answers: dict[int, Any] = {}
        missing: dict[str, str] = {}
        try:
            while self._refs:
                ready, _ = self._ray.wait(list(self._refs), num_returns=1, timeout=self._call.left)
                if not ready:
                    late = {shard for shard, _, _ in self._refs.values()}
                    missing |= {
                        self._shards.names[shard]: f"no answer within {self._call.timeout:g} s" for shard in late
                    }
                    self._refuse(missing, True, more)
                    break
                shard, number, tries = self._refs.pop(ready[0])
                try:
                    answers[shard] = self._ray.get(ready[0], timeout=self._call.left)
                except Exception as error:
                    why = self._failed(shard, number, tries, error)
                    if why is not None:
                        missing[self._shards.names[shard]] = why
                        self._refuse(missing, isinstance(error, self._ray.exceptions.GetTimeoutError), more)
        finally:
            self.cancel()
        return answers, {name: missing[name] for name in self._shards.names if name in missing}

    def _send(self, shard: int, tries: int) -> None:
        """Sends the question to a replica that may answer: the next one after each try."""
        able = self._able(shard)
        number = able[(self._turn + tries) % len(able)]
        method = getattr(self._shards.replicas[shard][number], self._method)
        repeats = -1 if len(able) == 1 else 0  # where there is no other replica, Ray waits for the restart
        ref = method.options(max_task_retries=repeats).remote(*self._arguments[shard])
        self._refs[ref] = shard, number, tries

    def _able(self, shard: int) -> list[int]:
        """The replicas of a shard that may answer."""
        replicas = range(1 if self._writer else len(self._shards.replicas[shard]))
        return [number for number in replicas if number not in self._gone[shard]]

    def _failed(self, shard: int, number: int, tries: int, error: Exception) -> str | None:
        """Asks again where that may help; else gives the reason why the shard is missing, or raises."""
        known = self._ray.exceptions
        if isinstance(error, known.GetTimeoutError):
            return f"no answer within {self._call.timeout:g} s"
        cause = error.cause if isinstance(error, known.RayTaskError) else None
        if isinstance(cause, (ValueError, TypeError, KeyError)) and not isinstance(cause, IndexFolderError):
            said = str(cause.args[0]) if cause.args else ""
            raise type(cause)(said.replace("HammingIndex", "ShardedIndex", 1)) from None
        fault = isinstance(cause, (IndexFolderError, OSError, MemoryError))
        if not isinstance(error, known.RayError) or (cause is not None and not fault):
            raise error  # a bug, which no other replica should hide
        why = str(cause) if fault else f"{type(error).__name__}, its actor is gone"
        if fault or isinstance(error, known.ActorDiedError):
            self._gone[shard].add(number)
        elif tries > _TRIES and not isinstance(error, known.ActorUnavailableError):
            return why
        able = self._able(shard)
        if not able:
            return why
        if (tries + 1) % len(able) == 0:
            time.sleep(_PAUSE)
        self._send(shard, tries + 1)
        return None

    def _refuse(self, missing: Mapping[str, str], late: bool, more: str) -> None:
        if not self._call.partial:
            raise shard_error(self._call.function, missing, len(self._shards), late, more)

    def cancel(self) -> None:
        """Takes back the calls that nobody waits for any more."""
        for ref in self._refs:
            with contextlib.suppress(Exception):
                self._ray.cancel(ref)
        self._refs.clear()
