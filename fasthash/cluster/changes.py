"""Changing a writable ShardedIndex: one allocator of ids, and one shard for each call of add."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fasthash._arrays import like, to_tensor
from fasthash.asymmetric import scales
from fasthash.cluster.asking import Call
from fasthash.cluster.handle import Handle, own_name
from fasthash.cluster.shard import Facts
from fasthash.codes import check_codes
from fasthash.index.segments import Contents, id_tensor

_UNSURE = "; it is not known if the codes were added: their ids are {first} to {last}, and no other code gets these ids"
_PARTLY = "; other shards may have removed theirs: call it again"


class Changes(Handle):
    """Adding and removing: methods of `ShardedIndex`. One change at a time, as with every index."""

    def add(
        self, codes: Any, ids: Any = None, *, keys: Any = None, code_scale: Any = None, timeout: float | None = None
    ) -> Any:
        """Adds codes, uint8 [N, ceil(bits / 8)], and gives their ids, as `HammingIndex.add` does without replace.

        All codes of a call go to the shard that has the fewest, in one durable transaction: when it returns, they are
        on the disk of that shard, and every later search sees them. None as ids continues from the highest that any
        shard has ever used + 1. Where the actor of the shard dies, Ray starts it again and the call is repeated; codes
        are added once. Raises ValueError or TypeError before anything changes, OSError in a ShardError where the disk
        is full, ShardError where the shard does not answer: its message says which ids are in doubt, and `id in index`
        tells later. timeout: seconds; None: those of the index.
        """
        function = "ShardedIndex.add"
        call = self._call(function, timeout)
        packed = to_tensor(codes, function, "codes")
        check_codes(packed, self._model.bits, function)
        with self._alone(call):
            self._check_writable(function)
            facts = self._known(call, "its content is not known, so no ids can be assigned")
            scale = self._new_scale(facts, code_scale, len(packed), function)
            self._check_keys(facts, keys, len(packed), function)
            before = Contents.of((), max(fact.next_id for fact in facts))
            with own_name():
                numbers, next_id = before.new_ids(ids, len(packed), False, torch.device("cpu"))
            if len(packed):
                given = numbers if isinstance(numbers, int) else numbers.numpy()
                if not isinstance(given, int):
                    self._refuse_taken(given, None, call)
                if keys is not None:
                    self._refuse_taken(None, list(keys), call)
                self._add_to_smallest(facts, (packed.cpu().numpy(), given, keys, scale), next_id, call)
        if isinstance(numbers, int):
            return like(torch.arange(numbers, numbers + len(packed)).to(packed.device), codes)
        return like(numbers.to(packed.device), codes)

    def remove(self, ids: Any = None, *, keys: Any = None, timeout: float | None = None) -> int:
        """Removes the codes of these ids, or of these keys, from all shards, and gives how many there were.

        Each shard removes its own in one durable transaction. Raises ShardError where a shard does not answer: call it
        again then, unknown ids count for nothing. timeout: seconds; None: those of the index.
        """
        function = "ShardedIndex.remove"
        if (ids is None) == (keys is None):
            raise ValueError(f"{function}: either ids or keys must be given, got {'none' if ids is None else 'both'}")
        wanted = None if ids is None else id_tensor(ids, function).cpu().numpy()
        call = self._call(function, timeout)
        with self._alone(call):
            self._check_writable(function)
            facts = self._known(call, "its content is not known")
            held, _ = self._ask("held", (wanted, None if keys is None else list(keys)), call, writer=True)
            found = {shard: own for shard, own in held.items() if len(own)}
            for shard in found:
                self._doubted(shard)
            asked = self._send("remove", {shard: (own,) for shard, own in found.items()}, call, writer=True)
            for shard, generation in asked.answers(_PARTLY)[0].items():
                self._changed(shard, generation, codes=facts[shard].codes - len(found[shard]))
        return sum(len(own) for own in found.values())

    def _add_to_smallest(self, facts: list[Facts], arguments: tuple[Any, ...], next_id: int, call: Call) -> None:
        codes, ids, keys, scale = arguments
        shard = min(range(len(facts)), key=lambda number: facts[number].codes)
        numbers = (ids, ids + len(codes) - 1) if isinstance(ids, int) else (ids.min(), ids.max())
        doubt = _UNSURE.format(first=numbers[0], last=numbers[1])
        self._doubted(shard, next_id=next_id)  # whatever comes of it, these ids are not given again
        try:
            answers, _ = self._send("add", {shard: (codes, ids, keys, scale)}, call, writer=True).answers(doubt)
        except (ValueError, TypeError):  # refused: nothing has changed
            self._facts[shard] = facts[shard]
            raise
        total = facts[shard].codes + len(codes)
        self._changed(shard, answers[shard], codes=total, keyed=keys is not None, scaled=scale is not None)

    def _doubted(self, shard: int, **facts: Any) -> None:
        """A shard that may change: until it is known, replicas look at its folder again in each search."""
        own = self._facts[shard]
        if own is not None:
            self._facts[shard] = own._replace(generation=own.generation + 1, **facts)

    def _changed(self, shard: int, generation: int, **facts: Any) -> None:
        own = self._facts[shard]
        if own is not None:
            self._facts[shard] = own._replace(generation=generation, **facts)

    def _check_writable(self, function: str) -> None:
        if self._frozen:
            raise ValueError(f"{function}: {self._frozen}")

    def _new_scale(self, facts: list[Facts], given: Any, count: int, function: str) -> Any:
        filled = [fact for fact in facts if fact.codes]
        if filled and any(fact.scaled for fact in filled) != (given is not None):
            has, got = ("no", "some") if given is not None else ("a", "none")
            raise ValueError(f"{function}: the codes of this index have {has} code_scale each, got {got}")
        scale = scales(given, count, torch.device("cpu"), function)
        return None if scale is None else scale.numpy()

    def _check_keys(self, facts: list[Facts], keys: Any, count: int, function: str) -> None:
        keyed, codes = any(fact.keyed for fact in facts), sum(fact.codes for fact in facts)
        if keyed and count and keys is None:
            raise ValueError(f"{function}: the index has keys, so {count} codes need keys=, got None")
        if codes and keys is not None and not keyed:
            raise ValueError(f"{function}: the {codes} codes of the index have no keys, so keys must be None")

    def _refuse_taken(self, ids: Any, keys: Any, call: Call) -> None:
        """Raises ValueError where a shard has one of these ids, or keys, already."""
        held, _ = self._ask("held", (ids, keys), call, writer=True)
        taken = np.concatenate(list(held.values()))
        if len(taken) and keys is None:
            raise ValueError(f"{call.function}: id {taken.min()} is in the index already; remove it first")
        if len(taken):
            found, _ = self._ask("ids_of", (keys,), call, writer=True)
            first = int(np.flatnonzero(np.max(list(found.values()), axis=0) >= 0)[0])
            raise ValueError(f"{call.function}: key {keys[first]!r} is in the index already; remove it first")
