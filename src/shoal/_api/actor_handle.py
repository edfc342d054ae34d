"""Handles of actors: their methods, named lookup, kill."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    NoReturn,
    TypeVar,
    Unpack,
    overload,
)

from shoal._api.generators import ObjectRefGenerator
from shoal._api.option_types import MethodOptions
from shoal._api.options import resolve_num_returns, validate_method_options
from shoal._api.remote_call import F_co, RemoteCall
from shoal._api.session import current_session
from shoal._api.signatures import CallSignature
from shoal._core.base.identifiers import ActorID
from shoal._core.base.object_ref import ObjectRef
from shoal._core.process.templates import (
    STREAMING,
    ActorSpec,
    method_template,
    pack_spec,
    packed_exceptions,
    returns_code,
    unpack_spec,
)
from shoal.exceptions import ActorHandleNotFoundError

T_co = TypeVar("T_co", covariant=True)
_FunctionT = TypeVar("_FunctionT", bound=Callable[..., Any])

#: Where ``@method`` keeps its options on the function.
METHOD_OPTIONS_ATTRIBUTE = "__shoal_method_options__"

#: Methods every actor has, besides those of its class.
BUILT_IN_METHODS: dict[str, dict[str, Any]] = {
    name: {"returns": 1, "is_generator": False, "is_async": False}
    for name in ("__ray_call__", "__ray_ready__", "__ray_terminate__")
}


class ActorMethod(RemoteCall[F_co]):
    """A method of an actor, with ``.remote()`` and ``.options()``."""

    __slots__ = ("_handle", "_meta", "_name", "_template")

    def __init__(
        self, handle: ActorHandle[Any], name: str, meta: Mapping[str, Any] | None = None
    ) -> None:
        self._handle = handle
        self._name = name
        self._meta = meta
        self._template: Any = None

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        handle = self._handle
        native, calls = handle._connected()
        signature = handle._signature(self._name)
        if kwargs or not signature.least <= len(args) <= signature.most:
            signature.check(args, kwargs)
        if self._meta is None:
            template = handle._template(self._name)
        else:
            if self._template is None:
                self._template = method_template(
                    handle._spec.class_name, self._name, self._meta
                )
            template = self._template
        result = native.call_actor(
            calls, template, args, kwargs, handle._ref, handle._spec.max_pending_calls
        )
        if template.returns == STREAMING:
            return ObjectRefGenerator(native, *result)
        return None if template.returns == 0 else result

    if not TYPE_CHECKING:

        def remote(self, *args, **kwargs):
            """Call the method; returns its ref, refs or generator at once."""
            return self._call(args, kwargs)

        def __call__(self, *_args, **_kwargs) -> NoReturn:
            raise TypeError(
                f"Actor methods cannot be called directly. Instead of {self._name}(), "
                f"use {self._name}.remote()."
            )

    def options(self, **options: Any) -> _MethodWithOptions:
        """The same method with other options (checked when it is called)."""
        return _MethodWithOptions(self, options)

    def _remote(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """The old spelling of ``.options(...).remote(...)``."""
        if options:
            return self.options(**options).remote(*(args or ()), **(kwargs or {}))
        return self._call(tuple(args or ()), dict(kwargs or {}))

    def __repr__(self) -> str:
        return f"ActorMethod({self._handle!r}.{self._name})"


class _MethodWithOptions:
    """What ``handle.method.options(...)`` gives."""

    def __init__(self, method: ActorMethod[Any], options: Mapping[str, Any]) -> None:
        self._method = method
        self._options = options

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method with these options."""
        checked = validate_method_options(self._options, in_options=True)
        base = dict(self._method._handle._method_meta(self._method._name))
        if checked.get("num_returns") is not None:
            resolved = resolve_num_returns(checked, is_generator=base["is_generator"])
            base["returns"] = returns_code(resolved)
        if checked.get("concurrency_group") is not None:
            base["group"] = checked["concurrency_group"]
        if checked.get("max_task_retries") is not None:
            base["max_task_retries"] = checked["max_task_retries"]
        if checked.get("retry_exceptions") is not None:
            base["retry_exceptions"] = packed_exceptions(checked["retry_exceptions"])
        if checked.get("_generator_backpressure_num_objects") is not None:
            base["backpressure"] = checked["_generator_backpressure_num_objects"]
        if checked.get("name"):
            base["name"] = checked["name"]
        return ActorMethod(self._method._handle, self._method._name, base)._call(
            args, kwargs
        )


class ActorHandle(Generic[T_co]):
    """The name of an actor, through which its methods are called.

    Picklable: tasks and actors that receive it call the same actor.  When no handle is
    left anywhere, the actor ends after the calls already made (unless it is detached).

    Source: Ray's ``ActorHandle`` (user guide, "Actors").
    """

    def __init__(self, spec: ActorSpec, ref: ObjectRef[Any] | None) -> None:
        self._spec = spec
        #: counts as a hold of the actor; None for weak handles
        self._ref = ref
        self._methods: dict[str, dict[str, Any]] | None = None
        self._templates: dict[str, Any] = {}
        self._signatures: dict[str, CallSignature] = {}
        #: the session it was made (or received) in
        self._born = current_session().number
        self._session_number = 0
        self._native: Any = None
        self._calls: Any = None

    def _connected(self) -> tuple[Any, Any]:
        session = current_session()
        if session.number != self._session_number:
            self._native = session.native
            self._calls = session.native.actor_calls(self._spec)
            self._session_number = session.number
        return self._native, self._calls

    def _table(self) -> dict[str, dict[str, Any]]:
        if self._methods is None:
            described: dict[str, Any] = self._spec.methods
            own = {name: dict(items) for name, items in described.items()}
            self._methods = own | BUILT_IN_METHODS
        return self._methods

    def _method_meta(self, name: str) -> dict[str, Any]:
        return self._table()[name]

    def _signature(self, name: str) -> CallSignature:
        signature = self._signatures.get(name)
        if signature is None:
            packed = self._method_meta(name).get("signature")
            signature = CallSignature(name, None) if packed is None else _load(packed)
            self._signatures[name] = signature
        return signature

    def _template(self, name: str) -> Any:
        template = self._templates.get(name)
        if template is None:
            meta = self._method_meta(name)
            template = method_template(self._spec.class_name, name, meta)
            self._templates[name] = template
        return template

    def __getattr__(self, name: str) -> ActorMethod[Callable[..., ObjectRef[Any]]]:
        if name.startswith("_") and (name == "_spec" or name not in self._table()):
            raise AttributeError(name)
        if name not in self._table():
            raise AttributeError(
                f"The actor {self._spec.class_name} has no method {name!r}. It has: "
                f"{', '.join(sorted(self._spec.methods))}. Attributes that are not "
                "methods cannot be reached from outside: write a method for them."
            )
        return ActorMethod(self, name)

    def __dir__(self) -> list[str]:
        return [*self._table(), "_actor_id"]

    @property
    def _actor_id(self) -> ActorID:
        return ActorID(self._spec.actor_id)

    @property
    def _ray_actor_id(self) -> ActorID:
        return self._actor_id

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ActorHandle):
            return self._spec.actor_id == other._spec.actor_id
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._spec.actor_id)

    def __repr__(self) -> str:
        return f"Actor({self._spec.class_name}, {self._spec.actor_id.hex()})"

    def __reduce__(self) -> Any:
        return _rebuild, (pack_spec(self._spec), self._ref)


def _rebuild(packed: bytes, ref: ObjectRef[Any] | None) -> ActorHandle[Any]:
    return ActorHandle(unpack_spec(packed), ref)


def _load(packed: bytes) -> CallSignature:
    """A method's signature, from the actor's creator (an authenticated peer)."""
    signature: CallSignature = pickle.loads(packed)
    return signature


@overload
def method(function: _FunctionT, /) -> _FunctionT: ...
@overload
def method(
    **options: Unpack[MethodOptions],
) -> Callable[[_FunctionT], _FunctionT]: ...
def method(*args: Any, **options: Any) -> Any:
    """Set options of one method of an actor class: ``@method(num_returns=2)``.

    Raises:
        AssertionError: an unknown option.
    """
    if len(args) == 1 and not options and callable(args[0]):
        return args[0]
    assert not args, "use @method(option=value), or @method without arguments"
    checked = validate_method_options(options, in_options=False)

    def decorate(function: Any) -> Any:
        setattr(function, METHOD_OPTIONS_ATTRIBUTE, checked)
        return function

    return decorate


def get_actor(name: str, namespace: str | None = None) -> ActorHandle[Any]:
    """The handle of a named actor.

    The handle does not keep the actor alive: its creator's handles do, or its
    ``lifetime="detached"``.

    Raises:
        ValueError: there is no living actor of that name, or the name is empty.
    """
    if not name:
        raise ValueError("get_actor needs the name of an actor; it was empty.")
    native = current_session().native
    spec = native.lookup_actor(name, namespace or native.namespace)
    return ActorHandle(spec, None)


def kill(actor: ActorHandle[Any], *, no_restart: bool = True) -> None:
    """End an actor at once: running and later calls raise ActorDiedError.

    Args:
        actor: its handle.
        no_restart: False lets ``max_restarts`` start it again.

    Raises:
        ValueError: not a handle.
    """
    if not isinstance(actor, ActorHandle):
        raise ValueError(
            f"kill ends actors; it was given a {type(actor).__name__}. "
            "Use cancel for tasks."
        )
    session = current_session()
    if actor._born != session.number:
        raise ActorHandleNotFoundError(
            f"{actor!r} belongs to a session that has ended; its actor ended with it."
        )
    session.native.kill_actor(actor._spec.actor_id, no_restart=no_restart)
