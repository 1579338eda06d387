"""Ray, imported when it is first needed: what does without it works where it is not installed."""

from __future__ import annotations

from typing import Any


def ray_for(function: str) -> Any:
    """The module ray; raises ImportError, naming the function, where it is not installed."""
    try:
        import ray
        import ray.exceptions
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise ImportError(f"{function}: needs ray: pip install 'fasthash[ray]'") from error
    return ray
