"""Arrays in, tensors inside, the kind that was given out."""

from __future__ import annotations

import warnings
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fasthash import _fork  # noqa: F401  (whoever has arrays may fork)

_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor  # by vmap, grad ...

Array: TypeAlias = np.ndarray[Any, Any] | Tensor


def to_tensor(array: Any, function: str = "to_tensor", name: str = "array") -> Tensor:
    """Gives a tensor over the same memory as a numpy array (read-only ones and memmaps too), or the tensor itself.

    Anything else that numpy can read (a list of numbers, say) is copied, and so is a column of rows: a pandas Series of
    lists or arrays, a polars List or Array column, an arrow list column, or a data frame of one such column. The result
    of a read-only array must not be written to. Raises TypeError or ValueError, naming `function` and `name`, for what
    is not numeric, and for rows of different lengths.
    """
    if isinstance(array, Tensor):
        return array
    try:
        values = np.asarray(array)
    except ValueError as error:  # nested lists of different lengths
        raise ValueError(f"{function}: {name} must have rows of one length ({error})") from None
    if holds_one_column(values):
        values = values[:, 0]
    if values.dtype == object and values.ndim == 1 and len(values) and not isinstance(values[0], str):
        values = _rows_of_column(values, function, name)
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


def holds_one_column(values: np.ndarray[Any, Any]) -> bool:
    """Whether objects [N, 1] are a data frame of one column, which holds rows."""
    return values.dtype == object and values.shape[1:] == (1,) and len(values) > 0 and np.ndim(values[0, 0]) > 0


def _rows_of_column(column: np.ndarray[Any, Any], function: str, name: str) -> np.ndarray[Any, Any]:
    """A one-dimensional array of objects: numbers [N] -> [N], rows of F numbers -> [N, F]."""
    if np.ndim(column[0]) == 0:
        missing = [row for row, value in enumerate(column) if value is None]
        if missing:
            raise ValueError(f"{function}: {name} must not have missing values, got None in row {missing[0]}")
        try:
            return np.array(column.tolist())
        except (TypeError, ValueError):  # of several kinds
            return column
    for row, value in enumerate(column):
        if np.shape(value) != np.shape(column[0]):
            got = "None" if value is None else f"shape {list(np.shape(value))}"
            raise ValueError(
                f"{function}: {name} must have rows of one length: row 0 has shape {list(np.shape(column[0]))}, "
                f"row {row} {got}"
            )
    return np.stack([np.asarray(value) for value in column])


def in_graph(tensor: Tensor) -> bool:
    """Whether torch records a graph (compile, export, jit.trace, fake tensors, vmap): values must not be read then."""
    plain = type(tensor) is Tensor or isinstance(tensor, torch.nn.Parameter)
    tracing = torch._C._get_tracing_state() is not None
    return torch.compiler.is_compiling() or tracing or not plain or bool(_is_wrapped(tensor))


def dtype_name(array: Any) -> str:
    """The type of the elements in words of both numpy and torch: "int64"."""
    return str(array.dtype).removeprefix("torch.")


def like(result: Tensor, given: Any) -> Any:
    """Gives `result` as a tensor where `given` is one, else as a numpy array."""
    return result if isinstance(given, Tensor) else result.numpy(force=True)


def _describe(array: Any, values: np.ndarray[Any, Any]) -> str:
    return f"{type(array).__name__} of {dtype_name(values)}"
