"""A batch as a loader gives it, as arguments of the module and of the objective."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fasthash._arrays import to_tensor

TARGETS = ("y", "label", "labels", "target", "targets")  # names of an entry that is y
FEATURES = "features"
WAY_OUT = "give the loader a collate_fn that gives (x, y), or the module a forward that takes these names"


class Batch(NamedTuple):
    """The arguments of the module, positional and named, and those of the objective besides the outputs."""

    places: tuple[Tensor, ...]
    names: dict[str, Tensor]
    rest: list[Tensor]


def unpacked(batch: Any, module: nn.Module, device: torch.device, dtype: torch.dtype) -> Batch:
    """The parts of a batch, on the device: x, (x, y), (x, y, features), or a mapping with names.

    Of a mapping, the entry "y", "label", "labels", "target" or "targets" is y, and "features", beside y and an x, is
    the objective's unless `module.forward` takes all of x by name. What is left is x: one entry by place, several
    by name. x of a sequence may be such a mapping too. numpy arrays of another floating type than `dtype` become
    `dtype`. Raises ValueError or TypeError, saying what to do, for what cannot be told.

    >>> batch = {"pixel_values": torch.zeros(2, 4), "labels": torch.tensor([0, 1])}
    >>> unpacked(batch, nn.Linear(4, 8), torch.device("cpu"), torch.float32).rest
    [tensor([0, 1])]
    """
    x: Any
    if isinstance(batch, Mapping):
        x, rest = _of_mapping(batch, module)
    elif isinstance(batch, (Tensor, np.ndarray)):
        x, rest = batch, {}
    elif isinstance(batch, Iterable) and not isinstance(batch, (str, bytes)):
        parts = list(batch)
        if not parts:
            raise ValueError("train: a batch must be x, (x, y), (x, y, features) or a dict of them, got an empty one")
        x, rest = parts[0], {f"part {place} of a batch": part for place, part in enumerate(parts[1:], 2)}
    else:
        raise TypeError(
            f"train: a batch must be x, (x, y), (x, y, features) or a dict of them, got {type(batch).__name__}; "
            "give the loader a collate_fn"
        )
    others = [_tensor(part, name, device) for name, part in rest.items()]
    if not isinstance(x, Mapping):
        return Batch((_input(x, "x of a batch", device, dtype),), {}, others)
    inputs = {name: _input(part, f"entry {name!r} of a batch", device, dtype) for name, part in x.items()}
    if len(inputs) == 1:
        return Batch(tuple(inputs.values()), {}, others)
    _check_names(list(inputs), module, list(batch) if isinstance(batch, Mapping) else list(inputs))
    return Batch((), inputs, others)


def _of_mapping(batch: Mapping[str, Any], module: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entries that are x, and those for the objective, by what messages call them."""
    found = [name for name in TARGETS if name in batch]
    if len(found) > 1:
        raise ValueError(
            f"train: a batch must have one entry of targets, got {', '.join(map(repr, found))}; "
            "give the loader a collate_fn that gives (x, y)"
        )
    x = {name: part for name, part in batch.items() if name not in found}
    rest = {f"entry {name!r} of a batch": batch[name] for name in found}
    if found and FEATURES in x and len(x) > 1 and not x.keys() <= _parameters(module).keys():
        rest[f"entry {FEATURES!r} of a batch"] = x.pop(FEATURES)
    if not x:
        raise ValueError(f"train: a batch must have an entry that is x, got only {', '.join(map(repr, batch))}")
    return x, rest


def _check_names(names: list[str], module: nn.Module, entries: list[str]) -> None:
    """Refuses several entries of x that the module does not take by their names."""
    parameters = _parameters(module)
    if any(parameter.kind == inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    taken = [name for name, parameter in parameters.items() if parameter.kind in by_name]
    unknown = [name for name in names if name not in taken]
    if unknown:
        raise ValueError(
            f"train: cannot tell which entry of a batch is x: it has {', '.join(map(repr, entries))}, and the forward "
            f"of {type(module).__name__} has no parameter {unknown[0]!r} (only {', '.join(taken) or 'none'}); {WAY_OUT}"
        )


def _parameters(module: nn.Module) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(module.forward).parameters
    except (TypeError, ValueError):  # compiled ones say nothing: the call itself tells
        return {"": inspect.Parameter("_", inspect.Parameter.VAR_KEYWORD)}


def _tensor(part: Any, name: str, device: torch.device) -> Tensor:
    return to_tensor(part, "train", name).to(device, non_blocking=True)


def _input(part: Any, name: str, device: torch.device, dtype: torch.dtype) -> Tensor:
    tensor = _tensor(part, name, device)
    return tensor.to(dtype) if isinstance(part, np.ndarray) and tensor.is_floating_point() else tensor
