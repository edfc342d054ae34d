"""Actor classes: ``@remote`` on a class, ``.remote()``, creation options."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Unpack

from shoal._api.actor_handle import METHOD_OPTIONS_ATTRIBUTE, ActorHandle
from shoal._api.calling import encode_strategy, environment_key
from shoal._api.option_types import ActorOptions
from shoal._api.options import (
    actor_resources,
    check_actor_identity,
    resolve_actor_concurrency,
    resolve_num_returns,
    validate_actor_options,
)
from shoal._api.remote_call import F_co, RemoteCall
from shoal._api.session import current_session
from shoal._api.signatures import signature_of, signature_of_method
from shoal._core.process.templates import (
    ActorSpec,
    export_class,
    packed_exceptions,
    returns_code,
)


class ActorClassInheritanceException(TypeError):
    """An actor class cannot be subclassed; inherit from the plain class instead."""


class ActorClass(RemoteCall[F_co]):
    """A class whose instances live in processes of their own.

    Made by ``@remote``.  ``.remote(...)`` starts an actor and returns its handle.

    Source: Ray's ``ActorClass`` (API reference, "ray.remote").
    """

    def __init__(self, cls: type, options: Mapping[str, Any]) -> None:
        self._cls = cls
        self._options = dict(options)
        self._signature = signature_of(cls)
        self._methods: dict[str, dict[str, Any]] | None = None
        self.__name__ = cls.__name__
        self.__qualname__ = cls.__qualname__
        self.__doc__ = cls.__doc__
        self.__module__ = cls.__module__
        self.__wrapped__ = cls

    def __init_subclass__(cls, **_: Any) -> None:
        raise ActorClassInheritanceException("ActorClass is not to be subclassed")

    def __mro_entries__(self, _bases: tuple[Any, ...]) -> NoReturn:
        raise ActorClassInheritanceException(
            f"The actor class {self.__name__} cannot be inherited from. Inherit from "
            "the plain class, and make an actor class of the subclass with @remote."
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_cls":
            raise AttributeError(name)
        return getattr(self._cls, name)

    def _method_table(self) -> dict[str, dict[str, Any]]:
        if self._methods is None:
            self._methods = describe_methods(self._cls, self._options)
        return self._methods

    def _create(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> ActorHandle[Any]:
        self._signature.check(args, kwargs)
        options = self._options
        check_actor_identity(options)
        methods = self._method_table()
        session = current_session()
        native = session.native
        is_async = any(meta["is_async"] for meta in methods.values())
        concurrency, out_of_order = resolve_actor_concurrency(
            options, is_async=is_async
        )
        placement, running = actor_resources(options)
        key, pickled = export_class(self._cls)
        strategy = encode_strategy(
            options, placement, self._cls.__name__, creation=placement != running
        )
        spec = ActorSpec(
            actor_id=native.new_actor_id(),
            owner="",
            class_name=self._cls.__name__,
            class_key=key,
            pickled_class=pickled,
            args=b"",
            deps=[],
            placement_demand=placement.to_units(),
            running_demand=running.to_units(),
            env=environment_key(session, options.get("runtime_env")),
            name=options.get("name") or "",
            namespace=options.get("namespace") or native.namespace,
            detached=options.get("lifetime") == "detached",
            max_restarts=options.get("max_restarts") or 0,
            max_task_retries=options.get("max_task_retries") or 0,
            max_concurrency=concurrency,
            concurrency_groups=options.get("concurrency_groups") or {},
            is_async=is_async,
            out_of_order=out_of_order,
            max_pending_calls=_or(options.get("max_pending_calls"), -1),
            methods={name: list(meta.items()) for name, meta in methods.items()},
            strategy=strategy,
            placement_group=strategy[1] if strategy and strategy[0] == "pg" else b"",
            capture_children=bool(strategy and strategy[0] == "pg" and strategy[3]),
        )
        packed = native.pack_arguments(args, kwargs)
        spec, handle = native.create_actor(
            spec, packed, get_if_exists=bool(options.get("get_if_exists"))
        )
        return ActorHandle(spec, handle)

    if not TYPE_CHECKING:

        def remote(self, *args, **kwargs):
            """Start an actor; returns its handle at once."""
            return self._create(args, kwargs)

        def __call__(self, *_args, **_kwargs) -> NoReturn:
            raise TypeError(
                "Actors cannot be instantiated directly. Instead of "
                f"{self.__name__}(), use {self.__name__}.remote()."
            )

    def options(self, **options: Unpack[ActorOptions]) -> ActorClass[F_co]:
        """The same class with other creation options; those not named stay.

        Raises:
            TypeError: an option of the wrong type.
            ValueError: an unknown option, or a value that is not allowed.
        """
        checked = validate_actor_options(options, in_options=True)
        return ActorClass(self._cls, {**self._options, **checked})

    def _remote(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """The old spelling of ``.options(...).remote(...)``."""
        chosen = self.options(**options) if options else self
        return chosen._create(tuple(args or ()), dict(kwargs or {}))

    def __repr__(self) -> str:
        return f"ActorClass({self.__qualname__})"

    def __reduce__(self) -> Any:
        return _rebuild, (self._cls, self._options)


def _rebuild(cls: type, options: Mapping[str, Any]) -> ActorClass[Any]:
    return ActorClass(cls, options)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


_DUNDERS_OFFERED = ("__init__", "__call__", "__len__", "__getitem__", "__contains__")


def describe_methods(
    cls: type, options: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """What a handle must know of a class's methods, inherited ones included."""
    table: dict[str, dict[str, Any]] = {}
    for name in dir(cls):
        if name.startswith("__") and name not in _DUNDERS_OFFERED:
            continue
        attribute = inspect.getattr_static(cls, name)
        plain = attribute
        if isinstance(attribute, (staticmethod, classmethod)):
            plain = attribute.__func__
        if not (inspect.isfunction(plain) or inspect.isbuiltin(plain)):
            continue
        table[name] = _describe_method(plain, options)
        signature = signature_of_method(cls, name)
        table[name]["signature"] = pickle.dumps(signature, protocol=5)
    return table


def _describe_method(
    function: Callable[..., Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    given: dict[str, Any] = getattr(function, METHOD_OPTIONS_ATTRIBUTE, {})
    is_generator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(
        function
    )
    is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(
        function
    )
    retries = given.get("max_task_retries")
    backpressure = given.get("_generator_backpressure_num_objects")
    return {
        "returns": returns_code(resolve_num_returns(given, is_generator=is_generator)),
        "is_generator": is_generator,
        "is_async": is_async,
        "group": given.get("concurrency_group") or "",
        "max_task_retries": _or(retries, options.get("max_task_retries") or 0),
        "retry_exceptions": packed_exceptions(given.get("retry_exceptions")),
        "backpressure": _or(
            backpressure, options.get("_actor_generator_backpressure_num_objects", -1)
        ),
    }
