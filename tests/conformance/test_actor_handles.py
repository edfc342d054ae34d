"""Actor classes, handles and methods: what they offer and what they refuse.

The claims are those of the reference pages of ``ray.remote``, ``ray.method``,
``ActorClass`` and ``ActorHandle``.
"""

from __future__ import annotations

from typing import Any

import pytest
from conformance_impl import Gate, ray

pytestmark = pytest.mark.usefixtures("ray_session")


@ray.remote
class Counter:
    step = 10

    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    @staticmethod
    def double(x: int) -> int:
        return x * 2

    @classmethod
    def kind(cls) -> str:
        return cls.__name__


def test_handle_identity() -> None:
    """Handles of one actor are equal, hash alike, and show class and id."""
    one, two = Counter.remote(), Counter.remote()

    @ray.remote
    def same(handle: Any) -> Any:
        return handle

    back = ray.get(same.remote(one))
    assert back == one
    assert hash(back) == hash(one)
    assert one != two
    assert repr(one) == f"Actor(Counter, {one._actor_id.hex()})"
    assert len(one._actor_id.hex()) == 32


def test_handle_lists_methods() -> None:
    """dir() of a handle names the methods, attributes of the instance are refused."""
    counter = Counter.remote()
    assert {"add", "double", "kind", "__ray_ready__"} <= set(dir(counter))
    for missing in ("value", "no_such_method"):
        with pytest.raises(AttributeError, match=missing):
            getattr(counter, missing)


def test_inherited_methods() -> None:
    """An actor class may derive from plain classes; their methods are callable."""

    class Base:
        def __init__(self) -> None:
            self.items = ["base"]

        def inherited(self) -> list[str]:
            return self.items

        def overridden(self) -> str:
            return "base"

    @ray.remote
    class Derived(Base):
        def __init__(self) -> None:
            super().__init__()
            self.items.append("derived")

        def overridden(self) -> str:
            return "derived of " + super().overridden()

    derived = Derived.remote()
    assert ray.get(derived.inherited.remote()) == ["base", "derived"]
    assert ray.get(derived.overridden.remote()) == "derived of base"


def test_actor_class_cannot_be_inherited_from() -> None:
    """Deriving from a class that is already an actor class is a TypeError."""
    with pytest.raises(TypeError):
        type("Sub", (Counter,), {})


def test_static_and_class_methods() -> None:
    """Static and class methods can be called through a handle."""
    counter = Counter.remote()
    assert ray.get(counter.double.remote(4)) == 8
    assert ray.get(counter.kind.remote()) == "Counter"
    assert Counter.double(3) == 6
    assert Counter.step == 10


def test_num_returns_of_a_method() -> None:
    """@ray.method(num_returns=n) gives n references; .options() overrides it."""

    @ray.remote
    class Splitter:
        @ray.method(num_returns=2)
        def two(self) -> tuple[int, int]:
            return 1, 2

        def three(self) -> list[int]:
            return [1, 2, 3]

        def none(self) -> None:
            return None

    splitter = Splitter.remote()
    first, second = splitter.two.remote()
    assert ray.get([second, first]) == [2, 1]
    assert ray.get(splitter.two.options(num_returns=1).remote()) == (1, 2)
    assert ray.get(splitter.three.options(num_returns=3).remote()) == [1, 2, 3]
    assert splitter.none.options(num_returns=0).remote() is None


def test_generator_method_streams(gate: Gate) -> None:
    """A generator method hands out items before it is finished."""

    @ray.remote
    class Source:
        def items(self) -> Any:
            yield "early"
            gate.wait()
            yield "late"

    stream = Source.remote().items.remote()
    assert ray.get(next(stream)) == "early"
    gate.open()
    assert [ray.get(ref) for ref in stream] == ["late"]


def test_class_and_method_cannot_be_called_directly() -> None:
    """Calling the class or a method without .remote is a TypeError."""
    with pytest.raises(TypeError, match="remote"):
        Counter()
    with pytest.raises(TypeError, match="remote"):
        Counter.remote().add()


def test_arguments_are_checked_by_the_caller() -> None:
    """Arguments that do not fit the signature raise TypeError at .remote()."""
    with pytest.raises(TypeError, match="argument"):
        Counter.remote(1, 2)
    counter = Counter.remote()
    with pytest.raises(TypeError, match="argument"):
        counter.add.remote(1, 2)
    with pytest.raises(TypeError, match="argument"):
        counter.add.remote(number=1)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"no_such_option": 1}, ValueError),
        ({"max_restarts": -2}, ValueError),
        ({"max_restarts": "1"}, TypeError),
        ({"num_cpus": -1}, ValueError),
        ({"lifetime": "forever"}, ValueError),
        ({"name": ""}, ValueError),
        ({"name": "a", "namespace": ""}, ValueError),
        ({"get_if_exists": True}, ValueError),
        ({"concurrency_groups": {"io": 1}}, ValueError),
        ({"num_returns": 2}, ValueError),
        ({"max_concurrency": -1}, ValueError),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_actor_options(options: dict[str, Any], error: type[Exception]) -> None:
    """Unknown, ill-typed and impossible options raise before an actor exists."""
    with pytest.raises(error):
        Counter.options(**options).remote()


def test_bad_method_options() -> None:
    """ray.method refuses unknown keywords, and so do the options of a method."""
    with pytest.raises(AssertionError, match="no_such_option"):
        ray.method(no_such_option=1)
    with pytest.raises(TypeError, match="no_such_option"):
        Counter.remote().add.options(no_such_option=1).remote()


def test_ray_call_runs_a_function_on_the_instance() -> None:
    """__ray_call__ runs a function with the instance as its first argument."""
    counter = Counter.remote(5)

    def peek(instance: Any, factor: int, *, plus: int) -> int:
        return instance.value * factor + plus

    assert ray.get(counter.__ray_call__.remote(peek, 2, plus=1)) == 11


def test_ray_ready() -> None:
    """__ray_ready__ gives True once the actor is constructed."""
    assert ray.get(Counter.remote().__ray_ready__.remote()) is True
