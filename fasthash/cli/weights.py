"""Weights of groups of bits on the command line: 40x3,24x1 is 40 bits of weight 3, then 24 of weight 1."""

from __future__ import annotations

import argparse
import re
from typing import Any

from fasthash._bit_weights import bit_weights
from fasthash.cli.parser import UserError
from fasthash.codes import code_bytes
from fasthash.index.groups import shown_groups

Weights = list[tuple[int, int]]
_GROUP = re.compile(r"([0-9]{1,6})x([0-9]{1,6})", re.ASCII)


def parse_weights(text: str | None) -> Weights | None:
    """The groups of --bit-weights; the number of bits and the weights are checked where they are used.

    >>> parse_weights("40x3,24x1")
    [(40, 3), (24, 1)]
    """
    if text is None:
        return None
    groups = [_GROUP.fullmatch(group.strip()) for group in text.split(",")]
    if None in groups:
        raise UserError(
            "--bit-weights must be groups BITSxWEIGHT separated by commas, for example 40x3,24x1 for 40 bits of "
            f"weight 3 and then 24 bits of weight 1, got {text!r}"
        )
    return [(int(group[1]), int(group[2])) for group in groups if group]


def weights_of(arguments: argparse.Namespace, model: Any = None) -> Weights | None:
    """The weights that --bit-weights or the model says; None: undivided. Refuses two that differ."""
    typed, own = parse_weights(arguments.bit_weights), getattr(model, "bit_weights_", None)
    if own is None:
        return typed
    own = [(int(bits), int(weight)) for bits, weight in own]
    if typed is not None and not same_weights(typed, own, model.bits):
        raise UserError(
            f"{arguments.model}: its bits have the weights {shown_groups(tuple(own))}, --bit-weights must be "
            f"equal or be omitted, got {arguments.bit_weights}"
        )
    return own


def same_weights(a: Any, b: Any, bits: int) -> bool:
    """Whether two weights give the same distances for codes of these bits."""
    return bit_weights(a, "--bit-weights", code_bytes(bits)) == bit_weights(b, "--bit-weights", code_bytes(bits))
