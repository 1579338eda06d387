"""The state of everything random in a run: to go on from it, and to draw differently on each rank."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor


def read_generators(loader: Iterable[Any], device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """States of the generators of torch (CPU, `device`), numpy, Python and the loader: tensors, and parts for JSON."""
    tensors = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    for number, generator in enumerate(_generators(loader)):
        tensors[f"loader.{number}"] = generator.get_state()
    name, key, *rest = np.random.get_state(legacy=True)  # noqa: NPY002  (the global one, which others may draw from)
    version, inner, gauss = random.getstate()
    return tensors, {"numpy": [name, np.asarray(key).tolist(), *rest], "python": [version, list(inner), gauss]}


def write_generators(
    tensors: dict[str, Tensor], content: dict[str, Any], loader: Iterable[Any], device: torch.device
) -> None:
    """Sets all generators to what `read_generators` gave. Those of another device or loader are left alone."""
    torch.set_rng_state(tensors["torch"])
    if device.type == "cuda" and "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"], device)
    for number, generator in enumerate(_generators(loader)):
        if f"loader.{number}" in tensors:
            generator.set_state(tensors[f"loader.{number}"])
    name, key, *rest = content["numpy"]
    np.random.set_state((name, np.array(key, dtype=np.uint32), *rest))  # noqa: NPY002
    version, inner, gauss = content["python"]
    random.setstate((version, tuple(inner), gauss))


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """The global generators of numpy and Python are afterwards what they were."""
    state, inner = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
        random.setstate(inner)


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """The global generators of the CPU and of `device` start from `seed` inside, and are afterwards what they were."""
    with generators_kept(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


class RankGenerator:
    """torch's global generators as one rank has them for itself: in dropout, say, and not in the losses.

    They start anew in each epoch from the seed of the common ones, so that a run can go on from the end of any epoch.
    """

    def __init__(self, rank: int, device: torch.device) -> None:
        self.rank, self.device = rank, device
        self._states = _states(device)

    def start_epoch(self, epoch: int) -> None:
        seed = random.Random(f"{torch.initial_seed()} {epoch} {self.rank}").getrandbits(63)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.default_generator.manual_seed(seed)
            if self.device.type == "cuda":
                with torch.cuda.device(self.device):
                    torch.cuda.manual_seed(seed)
            self._states = _states(self.device)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Inside, the global generators are this rank's."""
        common = _states(self.device)
        _set_states(self._states, self.device)
        try:
            yield
        finally:
            self._states = _states(self.device)
            _set_states(common, self.device)


def common_states(device: torch.device) -> list[Tensor]:
    """States of torch's global generators (CPU and `device`), as tensors on `device`, which rank 0 can broadcast."""
    return [state.to(device) for state in _states(device)]


def set_common_states(states: list[Tensor], device: torch.device) -> None:
    """Sets torch's global generators to what `common_states` gave."""
    _set_states([state.cpu() for state in states], device)


def _states(device: torch.device) -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _set_states(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


def _generators(loader: Any) -> list[torch.Generator]:
    """Generators of a DataLoader and of its samplers, each once, in a fixed order."""
    found: list[torch.Generator] = []
    waiting = [loader]
    while waiting:
        part = waiting.pop(0)
        generator = getattr(part, "generator", None)
        if isinstance(generator, torch.Generator) and all(generator is not other for other in found):
            found.append(generator)
        waiting += [
            part.__dict__[name] for name in ("sampler", "batch_sampler") if name in getattr(part, "__dict__", ())
        ]
    return found
