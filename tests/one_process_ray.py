"""A stand-in for ray that calls everything at once, in this process: what ShardedIndex does with it can be tested by
the thousand, and each failure can be chosen."""

from __future__ import annotations

import pickle
import types
from collections.abc import Callable
from typing import Any


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: BaseException):
        super().__init__(str(cause))
        self.cause = cause


class ActorDiedError(RayError):
    pass


class ActorUnavailableError(RayError):
    pass


class GetTimeoutError(RayError, TimeoutError):
    pass


class Late(Exception):
    """What an actor raises that is not to answer."""


class Ref:
    def __init__(self, value: Any = None, error: BaseException | None = None):
        self.value, self.error = value, error


class Method:
    def __init__(self, call: Callable[..., Any]):
        self.call = call

    def options(self, **options: Any) -> Method:
        return self

    def remote(self, *arguments: Any) -> Ref:
        given = [argument.value if isinstance(argument, Ref) else argument for argument in arguments]
        try:
            copied = pickle.loads(pickle.dumps(given))
            return Ref(pickle.loads(pickle.dumps(self.call(*copied))))
        except (RayError, Late) as error:
            return Ref(error=error)
        except Exception as error:
            return Ref(error=RayTaskError(error))


class Handle:
    def __init__(self, actor: Any, ray: OneProcessRay):
        self._actor, self._ray = actor, ray

    def __getattr__(self, name: str) -> Method:
        def call(*arguments: Any) -> Any:
            self._ray.before(self._actor, name)
            return getattr(self._actor, name)(*arguments)

        return Method(call)


class Made:
    def __init__(self, what: Any, ray: OneProcessRay):
        self.what, self.ray = what, ray

    def options(self, **options: Any) -> Made:
        self.ray.options.append(options)
        return self

    def remote(self, *arguments: Any) -> Any:
        if not isinstance(self.what, type):
            return Method(self.what).remote(*arguments)
        self.ray.actors.append(self.what(*pickle.loads(pickle.dumps(arguments))))
        return Handle(self.ray.actors[-1], self.ray)


class OneProcessRay:
    """before(actor, method): is called before each call of an actor, and may raise what this call is to raise."""

    exceptions = types.SimpleNamespace(
        RayError=RayError,
        RayTaskError=RayTaskError,
        ActorDiedError=ActorDiedError,
        ActorUnavailableError=ActorUnavailableError,
        GetTimeoutError=GetTimeoutError,
    )

    util = types.SimpleNamespace(
        placement_group=lambda bundles, strategy: (bundles, strategy),
        remove_placement_group=lambda group: None,
        scheduling_strategies=types.SimpleNamespace(PlacementGroupSchedulingStrategy=lambda group: group),
    )

    def __init__(self) -> None:
        self.actors: list[Any] = []
        self.options: list[Any] = []
        self.before: Callable[[Any, str], None] = lambda actor, name: None

    def remote(self, what: Any) -> Made:
        return Made(what, self)

    def is_initialized(self) -> bool:
        return True

    def put(self, value: Any) -> Ref:
        return Ref(value)

    def wait(self, refs: list[Ref], num_returns: int, timeout: float | None) -> tuple[list[Ref], list[Ref]]:
        there = [ref for ref in refs if not isinstance(ref.error, Late)]
        return there[-1:], []  # the last first: the order of answers must not matter

    def get(self, ref: Ref, timeout: float | None = None) -> Any:
        if ref.error is not None:
            raise ref.error
        return ref.value

    def cancel(self, ref: Ref) -> None:
        pass

    def kill(self, handle: Handle) -> None:
        handle._actor.close(None)
