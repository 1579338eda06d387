"""Checks of arguments: one message for each kind, which names the function, the limit and the value."""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

MAX_BITS = 65_536  # of a code in an index
MOST = 2**40  # results of a query: beyond every memory, and within what 64-bit sizes can hold


def shown(value: Any) -> str:
    """A value as a message shows it: an array by its shape, anything else as it is.

    >>> shown(np.zeros(1000)), shown("mean")
    ('shape [1000]', "'mean'")
    """
    if isinstance(value, (np.ndarray, torch.Tensor)) and value.ndim:
        return f"shape {list(value.shape)}"
    return repr(value)


def whole(value: Any, function: str, name: str, low: int, high: int | None = None, what: str = "") -> int:
    """An integer (a bool is none) in low..high; raises TypeError or ValueError. what: says in the message what high is.

    >>> whole(2048, "hamming_topk", "k", 1, 1000)
    Traceback (most recent call last):
    ValueError: hamming_topk: k must be between 1 and 1000, got 2048
    """
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{function}: {name} must be an integer, got {shown(value)} ({type(value).__name__})") from None
    if number < low or (high is not None and number > high):
        limit = f"at least {low}" if high is None else f"between {low} and {high}{what and f' ({what})'}"
        raise ValueError(f"{function}: {name} must be {limit}, got {number}")
    return number


def number(
    value: Any,
    function: str,
    name: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> float:
    """A finite number (a bool is none) inside the limits: >= least, > above, <= most, < below.

    Raises TypeError or ValueError.

    >>> number(-1, "kl_loss", "eps", least=0)
    Traceback (most recent call last):
    ValueError: kl_loss: eps must be >= 0 and finite, got -1
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{function}: {name} must be a number, got {shown(value)} ({type(value).__name__})")
    limits = [
        (least, ">=", operator.ge),
        (above, ">", operator.gt),
        (most, "<=", operator.le),
        (below, "<", operator.lt),
    ]
    given = [(limit, sign, holds) for limit, sign, holds in limits if limit is not None]
    if not -math.inf < value < math.inf or not all(holds(value, limit) for limit, _, holds in given):
        words = [f"{sign} {limit}" for limit, sign, _ in given]
        if most is None and below is None:
            words.append("finite")
        raise ValueError(f"{function}: {name} must be {' and '.join(words)}, got {value}")
    return float(value)


def choice(value: Any, function: str, name: str, allowed: Sequence[str]) -> str:
    """One of the words `allowed`; raises ValueError.

    >>> choice("mean", "ndcg", "ties", ["expected", "index"])
    Traceback (most recent call last):
    ValueError: ndcg: ties must be 'expected' or 'index', got 'mean'
    """
    if not isinstance(value, str) or value not in allowed:
        *most, last = [repr(word) for word in allowed]
        words = f"{', '.join(most)} or {last}" if most else last
        raise ValueError(f"{function}: {name} must be {words}, got {shown(value)}")
    return value


def refuse_zeros_and_ones(filter: torch.Tensor, function: str) -> None:
    """Refuses an integer filter of 0 and 1 that repeats one of them: a mask and positions or ids look the same."""
    if not filter.numel() or filter.dtype == torch.bool or filter.is_floating_point():
        return
    values = filter.to(torch.int64) if filter.dtype in (torch.uint16, torch.uint32, torch.uint64) else filter
    zeros, ones = int((values == 0).sum()), int((values == 1).sum())
    if zeros + ones == filter.numel() and max(zeros, ones) > 1:
        raise TypeError(
            f"{function}: filter is ambiguous: it holds only 0 and 1, {zeros} and {ones} times. For a mask pass "
            "filter.astype(bool); for the ids 0 and 1 pass numpy.unique(filter)"
        )


def one_device(device: Any, function: str) -> torch.device:
    """A torch device that is there; raises TypeError for what is not one, RuntimeError for one that is not here."""
    try:
        return torch.empty(0, device=torch.device(device)).device  # fails here, not later
    except TypeError:
        raise TypeError(
            f"{function}: device must be a torch device ('cpu', 'cuda:0') or a list of them, got {device!r}"
        ) from None
    except (AssertionError, RuntimeError, NotImplementedError) as error:  # torch without CUDA asserts
        why = str(error).partition("\n")[0]
        raise RuntimeError(f"{function}: device {str(device)!r} cannot be used here ({why})") from None


def several_devices(devices: Any, function: str) -> tuple[torch.device, ...]:
    """A list or tuple of torch devices that are there, as `one_device`; raises ValueError where it is empty."""
    if not devices:
        raise ValueError(f"{function}: device must be a torch device or a list of them, got {devices!r}")
    return tuple(one_device(device, function) for device in devices)


@contextlib.contextmanager
def memory_for(what: str) -> Iterator[None]:
    """Turns what torch raises where memory is short into MemoryError(what); of a GPU, with what it needs and has."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(f"{what} ({'. '.join(str(error).split('. ')[:3])})") from error
    except RuntimeError as error:
        if "allocate" not in str(error):
            raise
        raise MemoryError(what) from error
