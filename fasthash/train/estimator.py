"""Scikit-learn's manners, which Hasher has without inheriting from it: errors, names of columns, kinds of output.

Scikit-learn need not be there. What it looks for by name (`_sklearn_output_config`, and its words of names that do not
match) is kept as it is in `sklearn.base` and `sklearn.utils.validation`.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fasthash._arrays import holds_one_column
from fasthash._warnings import warn

OUTPUTS = ("default", "pandas", "polars")


class NotFittedError(ValueError, AttributeError, RuntimeError):
    """A method was called before `fit`. Where scikit-learn is installed it is one of `sklearn.exceptions` as well."""

    def __reduce__(self) -> tuple[Any, ...]:  # the class of a raised error may be made while running: see not_fitted
        return not_fitted, self.args


def not_fitted(message: str) -> NotFittedError:
    """The error to raise before `fit`.

    >>> isinstance(not_fitted("Hasher.transform: call fit first"), (RuntimeError, NotFittedError))
    True
    """
    return _error_class()(message)


@lru_cache(maxsize=1)
def _error_class() -> type[NotFittedError]:
    if find_spec("sklearn") is None:
        return NotFittedError
    from sklearn import exceptions

    return type("NotFittedError", (NotFittedError, exceptions.NotFittedError), {"__module__": __name__})


def column_names(X: Any) -> NDArray[np.object_] | None:
    """The names of the columns of a data frame (pandas, polars, Arrow), where all are strings; else None.

    A frame of one column of rows, embeddings say, has no names of features. Raises TypeError where some are strings and
    others not.
    """
    if isinstance(X, (Tensor, np.ndarray)) or len(getattr(X, "shape", ())) != 2:
        return None
    given = X.column_names if type(X).__module__.startswith("pyarrow") else getattr(X, "columns", None)
    names = [] if given is None else list(given)
    if len(names) == 1 and holds_one_column(np.asarray(X)):
        return None
    kinds = sorted({type(name).__name__ for name in names})
    if len(kinds) > 1 and "str" in kinds:
        raise TypeError(
            "Feature names are only supported if all input features have string names, but your input has "
            f"{kinds} as feature name / column name types: X.columns.astype(str) makes them strings"
        )
    return np.array(names, dtype=object) if kinds == ["str"] else None


def check_column_names(X: Any, names: NDArray[np.object_] | None) -> None:
    """Compares the columns of X with the names seen in `fit`. Raises ValueError where they or their order differ.

    Warns where only one side has names: whether the columns are in order is not known then.
    """
    found = column_names(X)
    if (found is None) != (names is None):
        given = "X does not have valid feature names, but Hasher was fitted with feature names"
        message = "X has feature names, but Hasher was fitted without feature names" if names is None else given
        warn(message)
        return
    if found is None or names is None or found.tolist() == names.tolist():
        return
    message = "The feature names should match those that were passed during fit.\n"
    new, missing = sorted({*found} - {*names}), sorted({*names} - {*found})
    for listed, title in ((new, "unseen at fit time"), (missing, "seen at fit time, yet now missing")):
        if listed:
            lines = [f"- {name}\n" for name in listed[:5]] + ["- ...\n"] * (len(listed) > 5)
            message += f"Feature names {title}:\n{''.join(lines)}"
    if not new and not missing:
        message += "Feature names must be in the same order as they were in fit.\n"
    raise ValueError(message)


def output_kind(estimator: Any) -> str:
    """What `set_output` asks for, or scikit-learn's global setting `transform_output`: one of OUTPUTS."""
    own: str | None = getattr(estimator, "_sklearn_output_config", {}).get("transform")
    sklearn = sys.modules.get("sklearn")  # who has set it has imported it
    kind = own or ("default" if sklearn is None else sklearn.get_config().get("transform_output", "default"))
    if kind not in OUTPUTS:
        raise ValueError(f"Hasher.transform: output config must be in {list(OUTPUTS)}, got {kind}")
    return str(kind)


def in_frame(kind: str, outputs: Tensor, X: Any, columns: NDArray[np.object_]) -> Any:
    """Outputs [N, D] as a data frame of pandas (with the index of X, if it has one) or polars."""
    values = outputs.numpy(force=True)
    try:
        frames = import_module(kind)
    except ImportError:
        raise ImportError(
            f"Hasher.transform: set_output asks for {kind}, which is not installed: pip install {kind}"
        ) from None
    if kind == "polars":
        return frames.DataFrame(values, schema=columns.tolist(), orient="row")
    index = X.index if isinstance(X, (frames.DataFrame, frames.Series)) else None
    return frames.DataFrame(values, index=index, columns=columns)


def check_input_features(given: Any, names: NDArray[np.object_] | None, features: int) -> None:
    """Refuses the argument of `get_feature_names_out` where it is not that of `fit`."""
    if given is None:
        return
    if len(given) != features:
        raise ValueError(
            f"input_features should have length equal to number of features ({features}), got {len(given)}"
        )
    if names is not None and list(given) != names.tolist():
        raise ValueError("input_features is not equal to feature_names_in_")
