"""What all estimators share: settings by name, as scikit-learn has them, and the error before `fit`."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

from fasthash.train.estimator import not_fitted

Self = TypeVar("Self", bound="Params")


class Params:
    """get_params, set_params and repr of a class whose constructor keeps each argument under its own name.

    After `fit` it has module_.
    """

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The settings by name, as given."""
        return {name: getattr(self, name) for name in _defaults(self)}

    def set_params(self: Self, **params: Any) -> Self:
        """Changes settings by name; they count from the next `fit`. Raises ValueError for unknown names."""
        known = _defaults(self)
        for name in params:
            if name not in known:
                raise ValueError(f"{type(self).__name__}.set_params: {name!r} is not one of {', '.join(known)}")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")

    def _fitted(self, method: str) -> Any:
        """module_. Raises NotFittedError before `fit`."""
        if not hasattr(self, "module_"):
            name = type(self).__name__
            raise not_fitted(f"{name}.{method}: call fit first (or {name}.load)")
        return self.module_

    def __repr__(self) -> str:
        given, defaults = self.get_params(), _defaults(self)
        changed = (f"{name}={value!r}" for name, value in given.items() if value is not defaults[name])
        return f"{type(self).__name__}({', '.join(changed)})"


def _defaults(estimator: Params) -> dict[str, Any]:
    """The names of the settings, with their defaults."""
    parameters = inspect.signature(type(estimator)).parameters
    return {name: parameter.default for name, parameter in parameters.items()}
