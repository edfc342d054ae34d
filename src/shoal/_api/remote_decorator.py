"""``@remote``: makes remote functions and actor classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, Unpack, overload

from shoal._api.actor_class import ActorClass
from shoal._api.actor_handle import ActorHandle
from shoal._api.generators import ObjectRefGenerator
from shoal._api.option_types import RemoteOptions
from shoal._api.options import validate_actor_options, validate_task_options
from shoal._api.remote_function import RemoteFunction
from shoal._core.base.object_ref import ObjectRef

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Y = TypeVar("_Y")
_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)
_HOW_TO_USE = (
    "use @remote without arguments, or with options by name, such as "
    "@remote(num_cpus=2)"
)


class ClassLike(Protocol[_P, _T_co]):
    """A class: called like its __init__, and it has mro(), which functions have not."""

    def mro(self) -> list[type]: ...
    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _T_co: ...


class RemoteDecorator(Protocol):
    """What ``@remote(**options)`` returns."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, target: ClassLike[_P, _T], /
    ) -> ActorClass[Callable[_P, ActorHandle[_T]]]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, target: Callable[_P, Iterator[_Y]], /
    ) -> RemoteFunction[Callable[_P, ObjectRefGenerator[_Y]]]: ...
    @overload
    def __call__(
        self, target: Callable[_P, _R], /
    ) -> RemoteFunction[Callable[_P, ObjectRef[_R]]]: ...


class ManyReturnsDecorator(Protocol):
    """What ``@remote(num_returns=n)`` returns for n > 1."""

    def __call__(
        self, target: Callable[_P, Any], /
    ) -> RemoteFunction[Callable[_P, list[ObjectRef[Any]]]]: ...


class NoReturnsDecorator(Protocol):
    """What ``@remote(num_returns=0)`` returns."""

    def __call__(
        self, target: Callable[_P, Any], /
    ) -> RemoteFunction[Callable[_P, None]]: ...


@overload
def remote(  # type: ignore[overload-overlap]
    target: ClassLike[_P, _T], /
) -> ActorClass[Callable[_P, ActorHandle[_T]]]: ...
@overload
def remote(  # type: ignore[overload-overlap]
    target: Callable[_P, Iterator[_Y]], /
) -> RemoteFunction[Callable[_P, ObjectRefGenerator[_Y]]]: ...
@overload
def remote(
    target: Callable[_P, _R], /
) -> RemoteFunction[Callable[_P, ObjectRef[_R]]]: ...
@overload
def remote(  # type: ignore[overload-overlap]
    *, num_returns: Literal[0], **options: Unpack[RemoteOptions]
) -> NoReturnsDecorator: ...
@overload
def remote(  # type: ignore[overload-overlap]
    *,
    num_returns: Literal[1, "streaming"] | None = None,
    **options: Unpack[RemoteOptions],
) -> RemoteDecorator: ...
@overload
def remote(
    *, num_returns: int, **options: Unpack[RemoteOptions]
) -> ManyReturnsDecorator: ...
def remote(*targets: Any, **options: Any) -> Any:
    """Make a remote function of a function, or an actor class of a class.

    Used bare (``@remote``), with options (``@remote(num_cpus=2)``), or as a call
    (``remote(f)``).

    Raises:
        AssertionError: no arguments at all, or one that is not callable.
        TypeError: neither a function nor a class; an option of the wrong type.
        ValueError: an unknown option, or a value that is not allowed.
    """
    if len(targets) == 1 and not options and callable(targets[0]):
        return _make(targets[0], {})
    assert options, _HOW_TO_USE
    assert not targets, _HOW_TO_USE

    def decorate(target: Any) -> Any:
        return _make(target, options)

    return decorate


def _make(target: Any, options: dict[str, Any]) -> Any:
    if inspect.isfunction(target) or inspect.isbuiltin(target):
        return RemoteFunction(target, validate_task_options(options, in_options=False))
    if inspect.isclass(target):
        return ActorClass(target, validate_actor_options(options, in_options=False))
    raise TypeError(
        "The @remote decorator must be applied to a function or a class; it was "
        f"given a {type(target).__name__}."
    )
