"""Remote functions: ``@remote`` on a function, ``.remote()``, ``.options()``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NoReturn, ParamSpec, Unpack, overload

from shoal._api.calling import task_class, task_template
from shoal._api.generators import ObjectRefGenerator
from shoal._api.option_types import TaskOptions
from shoal._api.options import validate_task_options
from shoal._api.remote_call import F_co, RemoteCall
from shoal._api.session import Session, current_session
from shoal._api.signatures import CallSignature, signature_of
from shoal._core.base.object_ref import ObjectRef
from shoal._core.process.templates import STREAMING

_P = ParamSpec("_P")


class RemoteFunction(RemoteCall[F_co]):
    """A function that runs as a task.

    Made by ``@remote``.  ``.remote(...)`` submits a task and returns at once;
    ``.options(...)`` gives a variant with other options.

    Source: Ray's ``RemoteFunction`` (API reference, "ray.remote").
    """

    def __init__(
        self,
        function: Callable[..., Any],
        options: Mapping[str, Any],
        signature: CallSignature | None = None,
    ) -> None:
        if inspect.iscoroutinefunction(function):
            raise ValueError(
                "'async def' should not be used for remote tasks: a task runs alone in "
                "its worker. Use an async actor, or call asyncio.run inside the task."
            )
        self._function = function
        self._options = dict(options)
        self._signature = signature or signature_of(function)
        self._is_generator = inspect.isgeneratorfunction(function)
        self._session_number = 0
        self._call: Any = None
        self._sclass: Any = None
        self._native: Any = None
        for name in ("__name__", "__qualname__", "__doc__", "__module__"):
            if hasattr(function, name):
                setattr(self, name, getattr(function, name))
        self.__wrapped__ = function

    def _prepare(self, session: Session) -> None:
        """Work out what the options mean in this session, once."""
        self._call = task_template(
            self._function, self._options, is_generator=self._is_generator
        )
        self._sclass = task_class(
            session, self._options, getattr(self, "__name__", "the task")
        )
        self._native = session.native
        self._session_number = session.number

    def _submit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        signature = self._signature
        if kwargs or not signature.least <= len(args) <= signature.most:
            signature.check(args, kwargs)
        session = current_session()
        if session.number != self._session_number:
            self._prepare(session)
        call = self._call
        label = self._options.get("name") or ""
        result = self._native.submit(call, self._sclass, args, kwargs, label)
        if call.returns == STREAMING:
            return ObjectRefGenerator(self._native, *result)
        return None if call.returns == 0 else result

    if not TYPE_CHECKING:

        def remote(self, *args, **kwargs):
            """Submit a task; returns its ref, refs or generator at once."""
            return self._submit(args, kwargs)

        def __call__(self, *_args, **_kwargs) -> NoReturn:
            name = getattr(self, "__name__", "f")
            raise TypeError(
                f"Remote functions cannot be called directly. Instead of {name}(), try "
                f"{name}.remote()."
            )

    @overload
    def options(  # type: ignore[overload-overlap]
        self: RemoteFunction[Callable[_P, Any]],
        *,
        num_returns: Literal[0],
        **options: Unpack[TaskOptions],
    ) -> RemoteFunction[Callable[_P, None]]: ...
    @overload
    def options(
        self,
        *,
        num_returns: Literal[1, "streaming"] | None = None,
        **options: Unpack[TaskOptions],
    ) -> RemoteFunction[F_co]: ...
    @overload
    def options(
        self: RemoteFunction[Callable[_P, Any]],
        *,
        num_returns: int,
        **options: Unpack[TaskOptions],
    ) -> RemoteFunction[Callable[_P, list[ObjectRef[Any]]]]: ...
    def options(self, **options: Any) -> Any:
        """The same function with other options; those not named stay.

        Raises:
            TypeError: an option of the wrong type.
            ValueError: an unknown option, or a value that is not allowed.
        """
        checked = validate_task_options(options, in_options=True)
        return RemoteFunction(
            self._function, {**self._options, **checked}, self._signature
        )

    def _remote(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """The old spelling of ``.options(...).remote(...)``."""
        chosen = self.options(**options) if options else self
        return chosen._submit(tuple(args or ()), dict(kwargs or {}))

    def __repr__(self) -> str:
        return f"RemoteFunction({getattr(self, '__qualname__', self._function)})"

    def __reduce__(self) -> Any:
        return _rebuild, (self._function, self._options)


def _rebuild(
    function: Callable[..., Any], options: Mapping[str, Any]
) -> RemoteFunction[Any]:
    return RemoteFunction(function, options)
