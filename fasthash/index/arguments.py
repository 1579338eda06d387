"""Checks of the simple arguments of HammingIndex: one message for each that names function, limit and value."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

MAX_BITS = 65_536
MOST = 2**40  # results of a query: beyond every memory, and within what 64-bit sizes can hold


def whole(value: Any, name: str, function: str, low: int, high: int | None = None) -> int:
    """An integer (a bool is none) in low..high; raises TypeError or ValueError."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{function}: {name} must be an integer, got {value!r} ({type(value).__name__})") from None
    if number < low or (high is not None and number > high):
        limit = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ValueError(f"{function}: {name} must be {limit}, got {number}")
    return number


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
