"""What mypy cannot see by itself: the actors that ``@remote`` makes of classes.

mypy ignores what a decorator of a class returns, so that ``Counter.remote()`` is an
error to it, and ``handle.method`` goes through ``__getattr__``, which knows no
signature.  This plugin adds both.  Switch it on with::

    [tool.mypy]
    plugins = ["shoal.mypy_plugin"]

Then a class under ``@shoal.remote``, with options or without, has ``remote`` (takes
what the constructor takes, returns a handle) and ``options``; and each method of a
handle takes the arguments of the method (or refs to them) and returns refs to what it
returns: to the result of a coroutine, to the items of a generator, to several objects
where ``@method(num_returns=...)`` says so.

Limits: constructors and methods with overloads take anything; ``num_returns`` is not
seen where ``method`` has been given another name.  Nothing of shoal imports this
module, and it imports mypy alone.

Source: mypy's documentation, "Extending and integrating mypy".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mypy.expandtype import expand_type_by_instance
from mypy.maptype import map_instance_to_supertype
from mypy.nodes import (
    ARG_STAR,
    ARG_STAR2,
    MDEF,
    CallExpr,
    Decorator,
    Expression,
    FuncBase,
    FuncDef,
    IntExpr,
    MemberExpr,
    NameExpr,
    RefExpr,
    SymbolTableNode,
    TypeInfo,
    Var,
)
from mypy.plugin import (
    AttributeContext,
    CheckerPluginInterface,
    ClassDefContext,
    Plugin,
    SemanticAnalyzerPluginInterface,
)
from mypy.plugins.dataclasses import (
    dataclass_class_maker_callback,
    dataclass_makers,
)
from mypy.typeops import bind_self, function_type
from mypy.types import (
    AnyType,
    CallableType,
    FunctionLike,
    Instance,
    NoneType,
    Type,
    TypeOfAny,
    get_proper_type,
)

# Hooks are told of names by the modules that define them,
REMOTE = "shoal._api.remote_decorator.remote"
HANDLE_ATTRIBUTES = "shoal._api.actor_handle.ActorHandle"
# and find them by the names that users import.
ACTOR_CLASS = "shoal.actor.ActorClass"
ACTOR_HANDLE = "shoal.actor.ActorHandle"
ACTOR_METHOD = "shoal.actor.ActorMethod"
OBJECT_REF = "shoal.ObjectRef"
OBJECT_REF_GENERATOR = "shoal.ObjectRefGenerator"

#: Names that ``ActorClass`` gives to the class it was made of.
_ADDED_NAMES = ("remote", "options")
#: What ``@method`` is called by, alone or after a dot.
METHOD_NAME = "method"
_COROUTINES = ("typing.Coroutine", "typing.Awaitable")
_ITERATORS = (
    "typing.AsyncGenerator",
    "typing.AsyncIterator",
    "typing.Generator",
    "typing.Iterator",
)
#: Where a class keeps what its ``@method`` decorators say, through mypy's cache.
_METADATA = "shoal"


class ShoalPlugin(Plugin):
    """Types of actor classes and of the methods of handles."""

    def get_class_decorator_hook_2(
        self, fullname: str
    ) -> Callable[[ClassDefContext], bool] | None:
        """``@remote`` on a class."""
        return _add_actor_names if fullname == REMOTE else None

    def get_customize_class_mro_hook(
        self, _fullname: str
    ) -> Callable[[ClassDefContext], None] | None:
        """Every class, as it is read."""
        return _note_counts_of_returns

    def get_attribute_hook(
        self, fullname: str
    ) -> Callable[[AttributeContext], Type] | None:
        """``handle.method``."""
        owner, _, name = fullname.rpartition(".")
        if owner != HANDLE_ATTRIBUTES or name.startswith("__ray_"):
            return None
        return partial(_type_of_method, name=name)


def plugin(_version: str) -> type[Plugin]:
    """What mypy asks a plugin module for."""
    return ShoalPlugin


# -- classes ---------------------------------------------------------------------------


def _add_actor_names(context: ClassDefContext) -> bool:
    """Give the class ``remote`` and ``options``; False when it is too early for it."""
    api, info = context.api, context.cls.info
    if not _has_its_constructor(context):
        return False
    anything = AnyType(TypeOfAny.explicit)
    actor = Instance(info, [anything] * len(info.type_vars))
    handle = api.named_type_or_none(ACTOR_HANDLE, [actor])
    if handle is None:
        return False
    signature = _constructor(api, actor, handle)
    if signature is None:
        return False
    actor_class = api.named_type_or_none(ACTOR_CLASS, [signature])
    if actor_class is None:
        return False
    for name in _ADDED_NAMES:
        method = actor_class.type.get_method(name)
        kind = None if method is None else get_proper_type(method.type)
        if method is None or not isinstance(kind, FunctionLike):
            return False
        bound = bind_self(_seen_from(kind, actor_class, method.info), actor_class)
        variable = Var(name, bound)
        variable.info = info
        variable.is_classvar = True
        variable._fullname = f"{info.fullname}.{name}"
        info.names[name] = SymbolTableNode(MDEF, variable, plugin_generated=True)
    return True


def _has_its_constructor(context: ClassDefContext) -> bool:
    """Have mypy write the constructor of a dataclass now, if it has not done so.

    It asks the plugins for the decorators in the order they are written, ``@remote``
    first.
    """
    is_ready = True
    for decorator in context.cls.decorators:
        callee = decorator.callee if isinstance(decorator, CallExpr) else decorator
        if isinstance(callee, RefExpr) and callee.fullname in dataclass_makers:
            one = ClassDefContext(context.cls, decorator, context.api)
            is_ready = dataclass_class_maker_callback(one)
    return is_ready


def _constructor(
    api: SemanticAnalyzerPluginInterface, actor: Instance, handle: Instance
) -> CallableType | None:
    """The constructor as a function that returns a handle; None when it's too early."""
    function = api.named_type("builtins.function")
    found = actor.type.get_method("__init__")
    init = found.func if isinstance(found, Decorator) else found
    if init is None or init.info.fullname == "builtins.object":
        return CallableType([], [], [], handle, function)
    if init.type is None and isinstance(init, FuncDef) and init.unanalyzed_type:
        return None
    kind = function_type(init, function)
    if not isinstance(kind, CallableType):
        return _takes_anything(handle, function)
    kind = _seen_from(kind, actor, init.info)
    assert isinstance(kind, CallableType)
    return kind.copy_modified(
        arg_types=kind.arg_types[1:],
        arg_kinds=kind.arg_kinds[1:],
        arg_names=kind.arg_names[1:],
        ret_type=handle,
    )


def _note_counts_of_returns(context: ClassDefContext) -> None:
    """Note ``num_returns`` of the methods that set it, before names are resolved.

    A class may become an actor elsewhere, or be inherited by one, when its source is
    not at hand any more; so every class is looked at, and what is noted stays with it.
    """
    counts: dict[str, int | None] = {}
    for node in context.cls.defs.body:
        if isinstance(node, Decorator):
            for decorator in node.original_decorators:
                counts.update(_count_of_returns(node.name, decorator))
    if counts:
        context.cls.info.metadata[_METADATA] = counts


def _count_of_returns(name: str, decorator: Expression) -> dict[str, int | None]:
    """None stands for what is not a plain number."""
    if not isinstance(decorator, CallExpr):
        return {}
    callee = decorator.callee
    if not isinstance(callee, NameExpr | MemberExpr) or callee.name != METHOD_NAME:
        return {}
    for argument, value in zip(decorator.arg_names, decorator.args, strict=True):
        if argument == "num_returns":
            return {name: value.value if isinstance(value, IntExpr) else None}
    return {}


# -- methods ---------------------------------------------------------------------------


def _type_of_method(context: AttributeContext, name: str) -> Type:
    """The type of ``handle.<name>``."""
    handle = get_proper_type(context.type)
    actor = get_proper_type(handle.args[0]) if isinstance(handle, Instance) else None
    if not isinstance(actor, Instance):
        return context.default_attr_type
    symbol = actor.type.get(name)
    if symbol is None or symbol.node is None:
        context.api.fail(
            f'Actor "{actor.type.name}" has no method "{name}"', context.context
        )
        return context.default_attr_type
    node = symbol.node
    definition = node.func if isinstance(node, Decorator) else node
    signature = get_proper_type(symbol.type)
    if signature is None and isinstance(definition, FuncDef):
        function = context.api.named_generic_type("builtins.function", [])
        signature = function_type(definition, function)
    if not isinstance(signature, CallableType) or not isinstance(definition, FuncBase):
        return context.default_attr_type
    if not definition.is_static:
        signature = bind_self(signature, actor)
    signature = _seen_from(signature, actor, definition.info)
    assert isinstance(signature, CallableType)
    counts = definition.info.metadata.get(_METADATA, {})
    if name in counts:
        returned = _several(context.api, counts[name])
    else:
        returned = _ref_to(context.api, signature.ret_type)
    return context.api.named_generic_type(
        ACTOR_METHOD, [signature.copy_modified(ret_type=returned)]
    )


def _ref_to(api: CheckerPluginInterface, declared: Type) -> Type:
    """What the caller gets where the method returns this."""
    result = get_proper_type(declared)
    if isinstance(result, Instance):
        if result.type.fullname in _COROUTINES:
            return api.named_generic_type(OBJECT_REF, [result.args[-1]])
        if result.type.fullname in _ITERATORS:
            return api.named_generic_type(OBJECT_REF_GENERATOR, [result.args[0]])
    return api.named_generic_type(OBJECT_REF, [declared])


def _several(api: CheckerPluginInterface, count: int | None) -> Type:
    """What the caller gets where the method has ``num_returns``."""
    anything = AnyType(TypeOfAny.explicit)
    if count is None:
        return anything
    if count == 0:
        return NoneType()
    ref = api.named_generic_type(OBJECT_REF, [anything])
    return ref if count == 1 else api.named_generic_type("builtins.list", [ref])


# -- both ------------------------------------------------------------------------------


def _seen_from(kind: FunctionLike, owner: Instance, definer: TypeInfo) -> FunctionLike:
    """A type of ``definer``'s body with the type arguments that ``owner`` has."""
    expanded = expand_type_by_instance(kind, map_instance_to_supertype(owner, definer))
    assert isinstance(expanded, FunctionLike)
    return expanded


def _takes_anything(returned: Type, function: Instance) -> CallableType:
    anything = AnyType(TypeOfAny.explicit)
    return CallableType(
        [anything, anything],
        [ARG_STAR, ARG_STAR2],
        [None, None],
        returned,
        function,
        is_ellipsis_args=True,
    )
