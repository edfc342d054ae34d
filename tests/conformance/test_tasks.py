"""Tasks: how functions become remote, how they are called, what they return.

Claims: the function forms of ``remote``, the argument rules of ``.remote()``, every
form of ``num_returns`` but the generators (test_generators), and what of a function's
surroundings reaches the worker.
"""

import functools
import os

import pytest
from conformance_impl import IMPL, eventually, ray


@ray.remote
def add(left, right=10):
    return left + right


@ray.remote
def echo(*args, **kwargs):
    return args, kwargs


@ray.remote
def identity(value):
    return value


def test_bare_decorator(ray_session):
    """A function under the bare decorator returns a ref to its result."""
    ref = add.remote(1, 2)
    assert isinstance(ref, ray.ObjectRef)
    assert ray.get(ref) == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda function: ray.remote(function),
        lambda function: ray.remote(num_cpus=1)(function),
        lambda function: ray.remote(function).options(num_cpus=2, name="other"),
    ],
    ids=["call", "call-with-options", "options"],
)
def test_other_ways_to_make_a_remote_function(ray_session, make):
    """`remote` is also a function, takes options, and `.options()` overrides them."""

    def double(value):
        return 2 * value

    assert ray.get(make(double).remote(4)) == 8


def test_options_leaves_the_original_alone(ray_session):
    """`.options()` gives a new callable; the remote function keeps its own options."""
    assert len(identity.options(num_returns=2).remote((1, 2))) == 2
    assert ray.get(identity.remote((1, 2))) == (1, 2)


def test_options_win_over_the_decorator(ray_session):
    """`.options(num_returns=...)` wins over the decorator."""

    @ray.remote(num_returns=3)
    def three():
        return 1, 2, 3

    assert ray.get(three.remote()) == [1, 2, 3]
    assert ray.get(three.options(num_returns=1).remote()) == (1, 2, 3)


def test_remote_needs_something_to_decorate():
    """`remote()` without arguments or on a value raises AssertionError."""
    with pytest.raises(AssertionError):
        ray.remote()
    with pytest.raises(AssertionError):
        ray.remote(3)


def test_remote_with_options_refuses_a_value():
    """With options, what is decorated must be a function or a class."""
    with pytest.raises(TypeError):
        ray.remote(num_cpus=1)(functools.partial(max, 1))


def test_async_function_is_refused(ray_session):
    """An `async def` is no task: ValueError."""

    async def coroutine():
        return 1

    with pytest.raises(ValueError, match="async"):
        ray.remote(coroutine).remote()


def test_direct_call_is_refused():
    """Calling the remote function itself raises TypeError and does not run it."""
    with pytest.raises(TypeError, match="remote"):
        add(1, 2)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1, 2, 3), {}), ((1,), {"wrong": 2}), ((1,), {"left": 2})],
    ids=["missing", "too-many", "unknown-keyword", "given-twice"],
)
def test_signature_is_checked_by_the_caller(ray_session, args, kwargs):
    """Arguments that do not fit the signature raise TypeError at `.remote()`."""
    with pytest.raises(TypeError):
        add.remote(*args, **kwargs)


def test_defaults_and_keywords(ray_session):
    """Defaults, keywords and any order of keywords work as in a plain call."""
    refs = [add.remote(1), add.remote(1, right=2), add.remote(right=5, left=1)]
    assert ray.get(refs) == [11, 3, 6]


def test_variable_arguments(ray_session):
    """`*args` and `**kwargs` arrive as given."""
    assert ray.get(echo.remote()) == ((), {})
    assert ray.get(echo.remote(1, "two", a=3, b=None)) == (
        (1, "two"),
        {"a": 3, "b": None},
    )


def test_keyword_only_and_positional_only(ray_session):
    """Keyword-only and positional-only parameters keep their rules."""

    @ray.remote
    def strict(first, /, *, second=2):
        return first, second

    assert ray.get(strict.remote(1)) == (1, 2)
    assert ray.get(strict.remote(1, second=5)) == (1, 5)
    with pytest.raises(TypeError):
        strict.remote(first=1)
    with pytest.raises(TypeError):
        strict.remote(1, 5)


def test_runs_in_another_process(ray_session):
    """A task runs in a worker process, in the driver's working directory."""

    @ray.remote
    def where():
        return os.getpid(), os.getcwd()

    pid, folder = ray.get(where.remote())
    assert pid != os.getpid()
    assert folder == os.getcwd()


def test_tasks_run_in_parallel(ray_session, journal):
    """As many one-CPU tasks as there are CPUs run at the same time."""

    @ray.remote
    def meet(number):
        journal.add(number)
        eventually(lambda: len(journal.read()) == 4, 30, "four tasks at once")
        return number

    assert ray.get([meet.remote(number) for number in range(4)]) == [0, 1, 2, 3]


def test_many_small_tasks(ray_session):
    """A thousand tasks submitted at once all return, in the order of their refs."""
    refs = [identity.remote(number) for number in range(1000)]
    assert ray.get(refs) == list(range(1000))


@pytest.mark.parametrize("size", [0, 1000, 100 * 1024, 5_000_000])
def test_argument_and_result_sizes(ray_session, size):
    """Arguments and results of any size arrive whole, inline or through the store."""
    value = os.urandom(size)
    assert ray.get(identity.remote(value)) == value


def test_caller_may_change_an_argument_after_the_call(ray_session, gate):
    """Arguments are taken as they are at `.remote()`."""

    @ray.remote
    def late(values):
        gate.wait()
        return values

    values = [1, 2]
    ref = late.remote(values)
    values.append(3)
    gate.open()
    assert ray.get(ref) == [1, 2]


def test_result_none(ray_session):
    """A function without a return statement gives None."""

    @ray.remote
    def nothing():
        pass

    assert ray.get(nothing.remote()) is None


def test_num_returns_zero(ray_session, journal):
    """`num_returns=0` returns None, and the task runs."""
    ran = ray.remote(lambda: journal.add("ran"))
    assert ran.options(num_returns=0).remote() is None
    eventually(lambda: journal.read() == ["ran"], why="the task ran")


def test_num_returns_one_does_not_unpack(ray_session):
    """`num_returns=1` is one ref to the whole tuple."""
    ref = identity.options(num_returns=1).remote((1, 2))
    assert ray.get(ref) == (1, 2)


@pytest.mark.parametrize("value", [(1, 2, 3), [1, 2, 3], {1: "a", 2: "b", 3: "c"}])
def test_num_returns_many(ray_session, value):
    """`num_returns=n` is a list of n refs, from any sized iterable (a dict's keys)."""
    refs = identity.options(num_returns=3).remote(value)
    assert isinstance(refs, list)
    assert len(set(refs)) == 3
    assert ray.get(refs) == [1, 2, 3]
    assert ray.get(refs[2]) == 3


@pytest.mark.parametrize(
    ("value", "error"),
    [((1, 2, 3), ValueError), ((1,), ValueError), (7, TypeError), (None, TypeError)],
    ids=["too-many", "too-few", "number", "none"],
)
def test_num_returns_mismatch(ray_session, value, error):
    """A result that does not fit num_returns fails every ref: Value- or TypeError."""
    for ref in identity.options(num_returns=2).remote(value):
        with pytest.raises(error) as caught:
            ray.get(ref)
        assert isinstance(caught.value, ray.exceptions.RayTaskError)


def test_lambda_and_closure(ray_session):
    """Lambdas and closures are remote functions; what they close over travels."""
    base = {"offset": 100}
    assert ray.get(ray.remote(lambda value: value + base["offset"]).remote(5)) == 105


def test_nested_function_and_local_class(ray_session):
    """Functions and classes of a local scope travel by value."""

    class Point:
        def __init__(self, x):
            self.x = x

        def doubled(self):
            return Point(2 * self.x)

    assert ray.get(identity.remote(Point(3))).x == 3
    assert ray.get(ray.remote(lambda point: point.doubled().x).remote(Point(3))) == 6


def test_functions_and_classes_as_values(ray_session):
    """A function or a class may be an argument and a result."""

    @ray.remote
    def apply(function, value):
        return function(value)

    assert ray.get(apply.remote(lambda value: value + 1, 1)) == 2
    assert ray.get(apply.remote(complex, 1)) == 1 + 0j
    assert ray.get(identity.remote(lambda: "called"))() == "called"


def test_remote_function_as_argument(ray_session):
    """A remote function may be passed to a task and called there."""

    @ray.remote
    def call(function):
        return ray.get(function.remote(1, 1))

    assert ray.get(call.remote(add)) == 2


def test_captured_values_are_taken_at_the_first_call(ray_session):
    """A function is pickled once: later changes of what it captured are not seen."""
    captured = ["first"]

    @ray.remote
    def look():
        return list(captured)

    assert ray.get(look.remote()) == ["first"]
    captured.append("second")
    assert ray.get(look.remote()) == ["first"]


def test_redefinition(ray_session):
    """Defining a function of the same name again gives the new one, for new calls."""

    def define(number):
        @ray.remote
        def version():
            return number

        return version

    first, second = define(1), define(2)
    assert ray.get([first.remote(), second.remote(), first.remote()]) == [1, 2, 1]


def test_module_of_the_driver(ray_session):
    """A module that the driver can import from its own folder, workers can."""

    @ray.remote
    def imports():
        import conformance_impl

        return conformance_impl.IMPL

    assert ray.get(imports.remote()) == IMPL


def test_env_vars(ray_session):
    """`runtime_env={"env_vars": ...}` is visible in the task and only there."""

    @ray.remote
    def read():
        return os.environ.get("CONFORMANCE_COLOUR")

    coloured = read.options(runtime_env={"env_vars": {"CONFORMANCE_COLOUR": "red"}})
    assert ray.get(coloured.remote()) == "red"
    assert ray.get(read.remote()) is None
    assert "CONFORMANCE_COLOUR" not in os.environ


def test_env_vars_must_be_strings(ray_session):
    """An env_vars value that is no string raises TypeError."""
    with pytest.raises(TypeError):
        identity.options(runtime_env={"env_vars": {"A": 1}}).remote(1)


def test_max_calls(ray_session):
    """`max_calls=1` runs every call in a new process."""

    @ray.remote(max_calls=1)
    def pid():
        return os.getpid()

    assert len({ray.get(pid.remote()) for _ in range(3)}) == 3
