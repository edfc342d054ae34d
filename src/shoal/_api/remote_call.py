"""The type of things with ``.remote()``: refs are accepted where values are.

One covariant type parameter, the callable that ``.remote()`` acts as (the user's
parameters, and what ``.remote()`` returns), serves functions, methods and classes.
A ``Generic[P, R]`` would not: a class is invariant in its ParamSpec, and overloads over
it do not solve.  Nothing here runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    TypeVar,
    overload,
)

from shoal._core.base.object_ref import ObjectRef

_P = ParamSpec("_P")
_Out = TypeVar("_Out")
F_co = TypeVar("F_co", bound=Callable[..., Any], covariant=True)
_A = TypeVar("_A")
_B = TypeVar("_B")
_C = TypeVar("_C")
_D = TypeVar("_D")
_E = TypeVar("_E")
_F = TypeVar("_F")
_G = TypeVar("_G")
_H = TypeVar("_H")
_I = TypeVar("_I")
_J = TypeVar("_J")


class RemoteCall(Generic[F_co]):
    """Everything with ``.remote()``: overload k lets the first k arguments be refs.

    The other arguments, keywords included, are the function's own.  A ref given by
    keyword is a type error: give it by position.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        @overload
        def remote(
            self: RemoteCall[Callable[_P, _Out]], *args: _P.args, **kwargs: _P.kwargs
        ) -> _Out: ...
        @overload
        def remote(
            self: RemoteCall[Callable[Concatenate[_A, _P], _Out]],
            a: _A | ObjectRef[_A],
            /,
            *args: _P.args,
            **kwargs: _P.kwargs,
        ) -> _Out: ...
        @overload
        def remote(
            self: RemoteCall[Callable[Concatenate[_A, _B, _P], _Out]],
            a: _A | ObjectRef[_A],
            b: _B | ObjectRef[_B],
            /,
            *args: _P.args,
            **kwargs: _P.kwargs,
        ) -> _Out: ...
        @overload
        def remote(
            self: RemoteCall[Callable[Concatenate[_A, _B, _C, _P], _Out]],
            a: _A | ObjectRef[_A],
            b: _B | ObjectRef[_B],
            c: _C | ObjectRef[_C],
            /,
            *args: _P.args,
            **kwargs: _P.kwargs,
        ) -> _Out: ...
        @overload
        def remote(
            self: RemoteCall[Callable[Concatenate[_A, _B, _C, _D, _P], _Out]],
            a: _A | ObjectRef[_A],
            b: _B | ObjectRef[_B],
            c: _C | ObjectRef[_C],
            d: _D | ObjectRef[_D],
            /,
            *args: _P.args,
            **kwargs: _P.kwargs,
        ) -> _Out: ...
        @overload
        def remote(
            self: RemoteCall[Callable[Concatenate[_A, _B, _C, _D, _E, _P], _Out]],
            a: _A | ObjectRef[_A],
            b: _B | ObjectRef[_B],
            c: _C | ObjectRef[_C],
            d: _D | ObjectRef[_D],
            e: _E | ObjectRef[_E],
            /,
            *args: _P.args,
            **kwargs: _P.kwargs,
        ) -> _Out: ...
        @overload
        def remote(
            self: RemoteCall[Callable[Concatenate[_A, _B, _C, _D, _E, _F, _P], _Out]],
            a: _A | ObjectRef[_A],
            b: _B | ObjectRef[_B],
            c: _C | ObjectRef[_C],
            d: _D | ObjectRef[_D],
            e: _E | ObjectRef[_E],
            f: _F | ObjectRef[_F],
            /,
            *args: _P.args,
            **kwargs: _P.kwargs,
        ) -> _Out: ...
        @overload
        def remote(
            self: RemoteCall[
                Callable[Concatenate[_A, _B, _C, _D, _E, _F, _G, _P], _Out]
            ],
            a: _A | ObjectRef[_A],
            b: _B | ObjectRef[_B],
            c: _C | ObjectRef[_C],
            d: _D | ObjectRef[_D],
            e: _E | ObjectRef[_E],
            f: _F | ObjectRef[_F],
            g: _G | ObjectRef[_G],
            /,
            *args: _P.args,
            **kwargs: _P.kwargs,
        ) -> _Out: ...
        @overload
        def remote(
            self: RemoteCall[
                Callable[Concatenate[_A, _B, _C, _D, _E, _F, _G, _H, _P], _Out]
            ],
            a: _A | ObjectRef[_A],
            b: _B | ObjectRef[_B],
            c: _C | ObjectRef[_C],
            d: _D | ObjectRef[_D],
            e: _E | ObjectRef[_E],
            f: _F | ObjectRef[_F],
            g: _G | ObjectRef[_G],
            h: _H | ObjectRef[_H],
            /,
            *args: _P.args,
            **kwargs: _P.kwargs,
        ) -> _Out: ...
        @overload
        def remote(
            self: RemoteCall[
                Callable[Concatenate[_A, _B, _C, _D, _E, _F, _G, _H, _I, _P], _Out]
            ],
            a: _A | ObjectRef[_A],
            b: _B | ObjectRef[_B],
            c: _C | ObjectRef[_C],
            d: _D | ObjectRef[_D],
            e: _E | ObjectRef[_E],
            f: _F | ObjectRef[_F],
            g: _G | ObjectRef[_G],
            h: _H | ObjectRef[_H],
            i: _I | ObjectRef[_I],
            /,
            *args: _P.args,
            **kwargs: _P.kwargs,
        ) -> _Out: ...
        @overload
        def remote(
            self: RemoteCall[
                Callable[Concatenate[_A, _B, _C, _D, _E, _F, _G, _H, _I, _J, _P], _Out]
            ],
            a: _A | ObjectRef[_A],
            b: _B | ObjectRef[_B],
            c: _C | ObjectRef[_C],
            d: _D | ObjectRef[_D],
            e: _E | ObjectRef[_E],
            f: _F | ObjectRef[_F],
            g: _G | ObjectRef[_G],
            h: _H | ObjectRef[_H],
            i: _I | ObjectRef[_I],
            j: _J | ObjectRef[_J],
            /,
            *args: _P.args,
            **kwargs: _P.kwargs,
        ) -> _Out: ...
        def remote(self: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]
            """Submit a call; returns its ref, refs or generator at once."""
