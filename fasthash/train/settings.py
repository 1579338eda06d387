"""The settings of Hasher: the limits of each, and what those that are left at None mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

from torch import nn

from fasthash._arguments import choice, number, one_device, whole
from fasthash.hierarchy import Hierarchy
from fasthash.train.plan import LIMITS as PLAN
from fasthash.train.plan import optional
from fasthash.train.supervision import KINDS

MAX_BITS = 4096

# By kind of target. Labels have few distances, spread over [0, 1]; near neighbours by cosine have small ones.
TEMPERATURE_Y = {"labels": 0.15, "multilabel": 0.2, "embedding": 0.05}
TEMPERATURE_Z = {"labels": 0.1, "multilabel": 0.1, "embedding": 0.03}
TEMPERATURE_Z_OF_SHORT = 0.04  # with y=None and at most a third as many bits as features
KL = {"labels": 0.1, "multilabel": 0.1, "embedding": 0.3}
KL_AT_FULL_WIDTH = 1.0  # with y=None and as many bits as features, where codes need not choose what to keep
# Of two-part codes: rows of one class may share its class part, and inside a class the listwise term tells rows apart.
TWO_PART_KL = 0.01
# With a y. A linear map of an embedding keeps the neighbours of that embedding better than a deep one, so without: ().
HIDDEN = (512, 512)
NEIGHBORS = 16
ITEM_PART = 5, 16  # five bits of sixteen order the items of a class
DIVIDED = 64  # bits; shorter codes have no bits for the order inside a class

# Settings that say where and how to run, not what is learned, and the hierarchy, which is saved in a form of its own.
NOT_SAVED = ("hierarchy", "device", "progress", "compile", "workers", "run_dir")


def _hierarchy(value: Any, function: str, name: str) -> Hierarchy:
    if not isinstance(value, Hierarchy):
        raise TypeError(f"{function}: {name} must be a fasthash.Hierarchy, got {type(value).__name__}")
    return value


def _loss(value: Any, function: str, name: str) -> str | nn.Module:
    if not isinstance(value, (str, nn.Module)):
        raise TypeError(f"{function}: {name} must be a name, a module or None, got {type(value).__name__}")
    return value


def widths(value: Any, function: str, name: str) -> tuple[int, ...]:
    if not isinstance(value, Iterable):
        raise TypeError(f"{function}: {name} must be a sequence of integers, got {value!r}")
    return tuple(whole(width, function, f"a width of {name}", 1) for width in value)


def as_given(value: Any, function: str, name: str) -> Any:
    return value


# Each check takes (value, function, name) and gives the value as Python's own int, float or str.
Limits = Mapping[str, Callable[[Any, str, str], Any]]
RUN: Limits = {  # of every estimator
    "bits": partial(whole, low=1, high=MAX_BITS),
    "lr": PLAN["lr"],
    "run_dir": as_given,
    "device": optional(lambda value, function, name: one_device(value, function)),
    "seed": partial(whole, low=0, high=2**63 - 1),
    "progress": as_given,
}
NETWORK: Limits = {  # of those that train an `encoder` on batches of rows
    "hidden": widths,
    "dropout": partial(number, least=0, below=1),
    "batch_size": partial(whole, low=2),
    "weight_decay": PLAN["weight_decay"],
}
LIMITS: Limits = {
    **RUN,
    **NETWORK,
    "item_bits": optional(partial(whole, low=0, high=MAX_BITS)),
    "hierarchy": optional(_hierarchy),
    "target": optional(partial(choice, allowed=KINDS)),
    "supervision": partial(choice, allowed=("full", "similarity")),
    "loss": optional(_loss),
    "classification": partial(number, least=0),
    "soft_labels": partial(number, least=0),
    "similarity": partial(choice, allowed=("listwise", "stress")),
    "similarity_weight": partial(number, least=0),
    "kl": optional(partial(number, least=0)),
    "kl_k": partial(whole, low=1, high=64),
    "preserve": partial(number, least=0),
    "draws": partial(whole, low=0),
    "neighbors": optional(partial(whole, low=1)),
    "rows_per_class": optional(partial(whole, low=1)),
    "init": optional(partial(choice, allowed=("random", "itq"))),
    "temperature_y": optional(partial(number, above=0)),
    "temperature_z": optional(partial(number, above=0)),
    "hidden": optional(widths),
    "head_scale": partial(number, above=0),
    "epochs": optional(PLAN["epochs"]),
    "precision": PLAN["precision"],
    "ema": PLAN["ema"],
    "patience": PLAN["patience"],
    "compile": as_given,
    "workers": partial(whole, low=0),
}


def checked(settings: Mapping[str, Any], function: str, limits: Limits = LIMITS) -> dict[str, Any]:
    """The settings, each inside its limits. Raises ValueError and TypeError, naming `function`, setting and limit.

    >>> checked({"bits": 0}, "Hasher.fit")
    Traceback (most recent call last):
    ValueError: Hasher.fit: bits must be between 1 and 4096, got 0
    """
    for name in settings:
        if name not in limits:
            raise ValueError(f"{function}: {name!r} is not one of {', '.join(limits)}")
    return {name: limits[name](value, function, name) for name, value in settings.items()}


def completed(settings: dict[str, Any], kind: str, supervised: bool, features: int) -> SimpleNamespace:
    """All settings, by attribute, with what None means for targets of this kind, with or without a y, and `features`.

    Raises ValueError for neighbors of targets that are no embeddings: their batches are random, neighbors is 1; for
    rows_per_class of targets that are no class labels; and for item_bits where codes cannot be divided.
    """
    near = kind == "embedding"
    if not near and settings["neighbors"] not in (None, 1):
        raise ValueError(f"Hasher.fit: neighbors needs target embeddings, got target {kind!r}")
    if kind != "labels" and settings["rows_per_class"] not in (None, 1):
        raise ValueError(f"Hasher.fit: rows_per_class needs class labels, got target {kind!r}")
    hidden = settings["hidden"] if settings["hidden"] is not None else HIDDEN if supervised else ()
    item_bits = _item_bits(settings, kind)
    short = not supervised and 3 * settings["bits"] <= features
    full_width = not supervised and not hidden and settings["bits"] >= features
    left_open = {
        "temperature_y": TEMPERATURE_Y[kind],
        "temperature_z": TEMPERATURE_Z_OF_SHORT if short else TEMPERATURE_Z[kind],
        "kl": TWO_PART_KL if item_bits else KL_AT_FULL_WIDTH if full_width else KL[kind],
        "hidden": hidden,
        "item_bits": item_bits,
        "init": "itq" if not supervised and not hidden else "random",
        "neighbors": NEIGHBORS if near else 1,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    return SimpleNamespace(**{**dict.fromkeys(settings), **left_open, **given})


def _item_bits(settings: dict[str, Any], kind: str) -> int:
    """Bits of the item part: those asked for, or five sixteenths of long codes of class labels."""
    asked, bits = settings["item_bits"], settings["bits"]
    reasons = {
        f"target {kind!r}": kind != "labels",
        "a loss of its own": settings["loss"] is not None,
        "preserve": settings["preserve"] > 0,
        'init "itq"': settings["init"] == "itq",
    }
    undivided = next((reason for reason, holds in reasons.items() if holds), None)
    if asked is None:
        return 0 if undivided or bits < DIVIDED else bits * ITEM_PART[0] // ITEM_PART[1]
    if asked >= bits:
        raise ValueError(f"Hasher.fit: item_bits must be below bits, {bits}, got {asked}")
    if asked and undivided:
        raise ValueError(f"Hasher.fit: item_bits must be 0 with {undivided}, got {asked}")
    return int(asked)
