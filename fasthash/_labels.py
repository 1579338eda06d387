"""Labels as people have them, as one array: lists, arrays, tensors, columns of data frames, categoricals."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasthash._arrays import dtype_name, to_tensor


def label_array(labels: Any, function: str, name: str, *, keep_column: bool = False) -> NDArray[Any]:
    """Labels as a numpy array: 1-D classes, int64 or str; or 2-D numbers as they are (multi-hot labels, embeddings).

    One column [N, 1] is 1-D classes, unless `keep_column`: that is what a data frame of labels gives. False and True
    are the classes 0 and 1. A memory-mapped array of two or more columns stays mapped. Raises TypeError for classes
    that are neither integers nor strings, ValueError for missing ones and for another number of dimensions.

    >>> label_array([["cat"], ["dog"]], "evaluate", "labels")
    array(['cat', 'dog'], dtype='<U3')
    """
    values = _numpy(labels, function, name)
    if values.ndim == 2 and values.shape[1] == 1 and not keep_column:
        values = values[:, 0]
    if values.ndim not in (1, 2):
        got = f"shape {list(values.shape)}" if values.ndim else f"shape [] ({type(labels).__name__})"
        raise ValueError(f"{function}: {name} must be 1-D classes or 2-D multi-hot, got {got}")
    if values.dtype == object:
        values = _of_one_kind(values, function, name)
    if values.ndim == 2:
        return values
    if values.dtype.kind not in "biuU":
        raise _of_another_type(values, function, name)
    if values.dtype == np.uint64 and len(values) and int(values.max()) >= 2**63:
        raise ValueError(f"{function}: {name} must be below 2**63, got {int(values.max())}")
    return values if values.dtype.kind == "U" else values.astype(np.int64)  # so that signed and unsigned ones compare


def missing_labels(labels: Any, *, minus_one: bool = True) -> tuple[NDArray[Any], NDArray[np.bool_]] | None:
    """1-D class labels (or one column) [N] as numpy reads them, and which are missing; None where all are there.

    Missing are None, NaN, and with `minus_one` -1, of integers or of floats that have a NaN beside it.

    >>> missing_labels(["cat", None])
    (array(['cat', None], dtype=object), array([False,  True]))
    """
    try:
        values = _numpy(labels, "", "")
    except (TypeError, ValueError):  # what it is will be said by who reads it
        return None
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "ifO":
        return None
    if values.dtype == object:
        missing = np.array([_is_missing(v) or (minus_one and is_minus_one(v)) for v in values], dtype=np.bool_)
    else:
        missing = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), dtype=np.bool_)
        if minus_one and (values.dtype.kind == "i" or missing.any()):
            missing = missing | (values == -1)
    return (values, missing) if missing.any() else None


def is_minus_one(value: Any) -> bool:
    """Whether it is the number -1.

    >>> is_minus_one(np.int8(-1)), is_minus_one("-1")
    (True, False)
    """
    return isinstance(value, (int, float, np.number)) and bool(value == -1)


def label_names(labels: Any, function: str, name: str) -> list[Any]:
    """Names of classes, one by one, as Python has them: of any iterable or array; one column [N, 1] is N names.

    >>> label_names(np.array([[3], [5]]), "class_distances", "classes")
    [3, 5]
    """
    if len(getattr(labels, "shape", ())) == 2:
        labels = label_array(labels, function, name)
    as_list = getattr(labels, "tolist", None) or getattr(labels, "to_pylist", None)
    given = labels if as_list is None else as_list()
    names = list(given) if isinstance(given, Iterable) else None
    if names and all(isinstance(row, list) and len(row) == 1 for row in names):
        names = [row[0] for row in names]
    if names is None or not all(isinstance(label, Hashable) for label in names):
        raise TypeError(f"{function}: {name} must be a list of names, got {type(labels).__name__}")
    return names


def one_column(labels: Tensor) -> Tensor:
    """Labels of a batch: integers or booleans [B, 1] as [B], anything else as it is."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 and not labels.is_floating_point() else labels


def _numpy(labels: Any, function: str, name: str) -> NDArray[Any]:
    """The labels as numpy reads them, but for what numpy changes or drops: numbers among strings, masks, rows."""
    if isinstance(labels, Tensor):
        rows = labels.detach().cpu()
        found: NDArray[Any] = (rows.float() if rows.dtype == torch.bfloat16 else rows).numpy()
        return found
    if isinstance(labels, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(labels)
        labels = labels.data.astype(object) if mask.any() else labels.data
        if mask.any():
            labels[mask] = None
    try:
        values = np.asarray(labels)
    except ValueError as error:  # nested lists of different lengths
        raise ValueError(f"{function}: {name} must have rows of one length ({error})") from None
    if values.dtype.kind == "T":  # numpy's strings of any length
        return values.astype(object)
    if isinstance(labels, (list, tuple)):
        if values.dtype.kind == "U":  # numpy makes strings of numbers and of NaN beside them
            return np.array(labels, dtype=object)
        return values if values.size else values.astype(np.int64)
    if values.dtype == object and values.ndim == 1 and len(values) and np.ndim(values[0]):  # a column of rows
        return to_tensor(values, function, name).numpy()
    return values


def _of_one_kind(values: NDArray[Any], function: str, name: str) -> NDArray[Any]:
    """An array of objects as integers, strings or booleans; refuses missing ones and a mixture."""
    flat = values.reshape(-1)
    kinds = {type(value) for value in flat}
    missing = next((place for place, value in enumerate(flat) if _is_missing(value)), None)
    if missing is not None:
        raise _missing(flat[missing], missing // (values.size // len(values)), function, name)
    if all(issubclass(kind, str) for kind in kinds):
        return values.astype(np.str_)
    if all(issubclass(kind, (bool, np.bool_)) for kind in kinds):
        return values.astype(np.bool_)
    # A data frame may hold multi-hot columns of several types.
    whole = (int, np.integer) if values.ndim == 1 else (int, np.integer, np.bool_)
    if all(issubclass(kind, whole) and (values.ndim == 2 or kind is not bool) for kind in kinds):
        try:
            return values.astype(np.int64)
        except OverflowError:
            raise ValueError(f"{function}: {name} must be below 2**63, got {max(flat)}") from None
    if values.ndim == 2 and all(issubclass(kind, (int, float, np.number, np.bool_)) for kind in kinds):
        return values.astype(np.float64)
    got = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise TypeError(f"{function}: {name} must hold integers or strings, all of one kind, got {got}")


def _of_another_type(values: NDArray[Any], function: str, name: str) -> Exception:
    """The error of a 1-D array whose type is not that of classes."""
    wrong = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), dtype=np.bool_)
    if wrong.any():
        return _missing(values[wrong.argmax()], int(wrong.argmax()), function, name)
    way_out = {"f": "; make whole numbers integers (.astype(int))", "S": "; decode them (.astype(str))"}
    got = f"{dtype_name(values)}{way_out.get(values.dtype.kind, '')}"
    return TypeError(f"{function}: {name} must hold integer or string classes, got {got}")


def _missing(value: Any, row: int, function: str, name: str) -> Exception:
    value = float(value) if isinstance(value, np.floating) else value
    return ValueError(f"{function}: {name} must not have missing values, got {value!r} in row {row}")


def _is_missing(value: Any) -> bool:
    """None, NaN, pandas.NA and NaT: the values that are not equal to themselves, or do not say."""
    if value is None:
        return True
    try:
        return bool(value != value)
    except TypeError:  # pandas.NA
        return True
