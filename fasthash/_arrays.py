"""Arrays in, tensors inside, the kind that was given out."""

from __future__ import annotations

import warnings
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Array: TypeAlias = np.ndarray[Any, Any] | Tensor


def to_tensor(array: Any, function: str = "to_tensor", name: str = "array") -> Tensor:
    """Gives a tensor over the same memory as a numpy array (read-only ones and memmaps too), or the tensor itself.

    Anything else that numpy can read (a list of numbers, say) is copied. The result of a read-only array must not be
    written to. Raises TypeError, naming `function` and `name`, for what is not numeric.
    """
    if isinstance(array, Tensor):
        return array
    values = np.asarray(array)
    if values.dtype.kind not in "biuf" or values.dtype.itemsize > 8:
        raise TypeError(f"{function}: {name} must be a numeric array or tensor, got {_describe(array, values)}")
    if values.dtype.char in "qQ" or not values.dtype.isnative:  # long long is a type of its own, which torch refuses
        values = values.astype(f"{values.dtype.kind}{values.dtype.itemsize}")
    size, strides = values.dtype.itemsize, values.strides
    if min(strides, default=0) < 0 or (size > 1 and any(stride % size for stride in strides)):
        values = values.copy()
    if values.flags.writeable:
        return torch.from_numpy(values)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return torch.from_numpy(values)


def like(result: Tensor, given: Any) -> Any:
    """Gives `result` as a tensor where `given` is one, else as a numpy array."""
    return result if isinstance(given, Tensor) else result.numpy(force=True)


def _describe(array: Any, values: np.ndarray[Any, Any]) -> str:
    return f"{type(array).__name__} of {values.dtype}"
