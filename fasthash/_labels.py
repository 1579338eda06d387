"""Labels as people have them, as one array: lists, arrays, tensors, columns of data frames, categoricals."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fasthash._arrays import dtype_name, to_tensor


def label_array(labels: Any, function: str, name: str) -> NDArray[Any]:
    """Labels as a numpy array: 1-D classes, int64 or str; or 2-D numbers as they are (multi-hot labels, embeddings).

    One column [N, 1] is 1-D classes: that is what a data frame of labels gives. False and True are the classes 0 and 1.
    A memory-mapped array of two or more columns stays mapped. Raises TypeError for classes that are neither integers
    nor strings, ValueError for missing ones and for another number of dimensions.

    >>> label_array([["cat"], ["dog"]], "evaluate", "labels")
    array(['cat', 'dog'], dtype='<U3')
    """
    values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else _numpy(labels, function, name)
    if values.dtype == object and values.ndim == 1 and len(values) and np.ndim(values[0]):  # a column of rows
        values = to_tensor(values, function, name).numpy()
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim not in (1, 2):
        raise ValueError(f"{function}: {name} must be 1-D classes or 2-D multi-hot, got shape {list(values.shape)}")
    if values.dtype == object:
        values = _of_one_kind(values, function, name)
    if values.ndim == 2:
        return values
    if values.dtype.kind not in "biuU":
        raise TypeError(f"{function}: {name} must hold integer or string classes, got {dtype_name(values)}")
    if values.dtype == np.uint64 and len(values) and int(values.max()) >= 2**63:
        raise ValueError(f"{function}: {name} must be below 2**63, got {int(values.max())}")
    return values if values.dtype.kind == "U" else values.astype(np.int64)  # so that signed and unsigned ones compare


def _numpy(labels: Any, function: str, name: str) -> NDArray[Any]:
    try:
        return np.asarray(labels)
    except ValueError as error:  # nested lists of different lengths
        raise ValueError(f"{function}: {name} must have rows of one length ({error})") from None


def _of_one_kind(values: NDArray[Any], function: str, name: str) -> NDArray[Any]:
    """An array of objects as integers, strings or booleans; refuses missing ones and a mixture."""
    flat = values.reshape(-1)
    kinds = {type(value) for value in flat}
    missing = next((row for row, value in enumerate(flat) if _is_missing(value)), None)
    if missing is not None:
        raise ValueError(f"{function}: {name} must not have missing values, got {flat[missing]!r} in row {missing}")
    if all(issubclass(kind, str) for kind in kinds):
        return values.astype(np.str_)
    if all(issubclass(kind, (bool, np.bool_)) for kind in kinds):
        return values.astype(np.bool_)
    if all(issubclass(kind, (int, np.integer)) and not issubclass(kind, bool) for kind in kinds):
        try:
            return values.astype(np.int64)
        except OverflowError:
            raise ValueError(f"{function}: {name} must be below 2**63, got {max(flat)}") from None
    if values.ndim == 2 and all(issubclass(kind, (int, float, np.number)) for kind in kinds):
        return values.astype(np.float64)
    got = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise TypeError(f"{function}: {name} must hold integers or strings, all of one kind, got {got}")


def _is_missing(value: Any) -> bool:
    """None, NaN, pandas.NA and NaT: the values that are not equal to themselves, or do not say."""
    if value is None:
        return True
    try:
        return bool(value != value)
    except TypeError:  # pandas.NA
        return True
