"""Starting the actors of the shards: where, with what, and how Ray restarts them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from fasthash.cluster.engine import ray_for
from fasthash.cluster.shard import Place, Shard

_AT_ONCE = 4  # calls of one actor: one searches, others wait, or read and write arguments


class Actors:
    """The actors of all shards, until `close`."""

    def __init__(self, places: Sequence[Place], replicas: int, options: Sequence[Mapping[str, Any]], function: str):
        """options: Ray's options of the actors of each shard, beside those that are chosen here."""
        self._ray = ray_for(function)
        self._groups: list[Any] = []
        self.handles = [self._start(place, replicas, own) for place, own in zip(places, options, strict=True)]

    def _start(self, place: Place, replicas: int, options: Mapping[str, Any]) -> list[Any]:
        """The actors of one shard: on different nodes, as far as there are some."""
        chosen: dict[str, Any] = {
            "num_cpus": place.threads,
            "num_gpus": 1 if place.device.startswith("cuda") else 0,
            "max_restarts": -1,
            "max_concurrency": _AT_ONCE,
            "scheduling_strategy": "SPREAD",
            **options,
        }
        if replicas > 1 and "scheduling_strategy" not in options:
            util = self._ray.util
            needs = {"CPU": chosen["num_cpus"], "GPU": chosen["num_gpus"], **chosen.get("resources", {})}
            bundle = {name: amount for name, amount in needs.items() if amount}
            if bundle:
                self._groups.append(util.placement_group([bundle] * replicas, strategy="SPREAD"))
                chosen["scheduling_strategy"] = util.scheduling_strategies.PlacementGroupSchedulingStrategy(
                    self._groups[-1]
                )
        actor = self._ray.remote(Shard).options(**chosen)
        return [actor.remote(place._replace(writable=place.writable and not number)) for number in range(replicas)]

    def close(self) -> None:
        """Ends the actors, unless Ray has ended them."""
        if self._ray.is_initialized():  # a call would start it again
            for handle in (handle for own in self.handles for handle in own):
                with contextlib.suppress(Exception):
                    self._ray.kill(handle)
            for group in self._groups:
                with contextlib.suppress(Exception):
                    self._ray.util.remove_placement_group(group)
