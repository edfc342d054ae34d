"""Arguments are judged at the call exactly as Python would judge them."""

import inspect
import pickle
from sys import maxsize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal._api.signatures import CallSignature, signature_of, signature_of_method


def two(a, b=1):
    return a, b


def every_kind(a, /, b, c=3, *, d, e=5):
    return a, b, c, d, e


def anything(*args, **kwargs):
    return args, kwargs


class Example:
    def __init__(self, x, y=0):
        self.x = x

    def plain(self, a):
        return a

    @staticmethod
    def static(a):
        return a

    @classmethod
    def of_class(cls, a):
        return a

    def variable(*args):
        return args


class Derived(Example):
    pass


class Bare:
    pass


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "message"),
    [
        (two, (), {}, "missing a required argument: 'a'"),
        (two, (1, 2, 3), {}, "too many positional arguments"),
        (two, (1,), {"z": 1}, "got an unexpected keyword argument 'z'"),
        (two, (1,), {"a": 1}, "multiple values for argument 'a'"),
        (two, (), {"b": 1}, "missing a required argument: 'a'"),
        (every_kind, (1, 2), {}, "missing a required argument: 'd'"),
        (every_kind, (), {"a": 1, "b": 2, "d": 4}, "'a' parameter is positional only"),
        (Example, (), {}, "missing a required argument: 'x'"),
        (Bare, (1,), {}, "too many positional arguments"),
    ],
)
def test_errors_say_what_is_wrong(function, args, kwargs, message):
    with pytest.raises(TypeError, match=message):
        signature_of(function).check(args, kwargs)


def test_errors_show_the_signature():
    with pytest.raises(TypeError, match=r"\(calling two\(a, b=…\)\)"):
        signature_of(two).check((), {})
    assert str(signature_of(every_kind)) == "every_kind(a, /, b, c=…, *, d, e=…)"
    assert str(signature_of(anything)) == "anything(*args, **kwargs)"
    assert repr(signature_of(two)) == "CallSignature(two(a, b=…))"


def test_the_bounds_decide_calls_without_keywords():
    assert (signature_of(two).least, signature_of(two).most) == (1, 2)
    assert (signature_of(anything).least, signature_of(anything).most) == (0, maxsize)
    signature = signature_of(every_kind)
    assert signature.least > signature.most


@pytest.mark.parametrize(
    "name", ["plain", "static", "of_class"], ids=["plain", "static", "class"]
)
@pytest.mark.parametrize("cls", [Example, Derived])
def test_methods_are_seen_without_self(cls, name):
    signature = signature_of_method(cls, name)
    signature.check((1,), {})
    signature.check((), {"a": 1})
    with pytest.raises(TypeError, match="missing a required argument: 'a'"):
        signature.check((), {})
    with pytest.raises(TypeError, match="too many"):
        signature.check((1, 2), {})


def test_a_method_may_take_everything():
    signature_of_method(Example, "variable").check((1, 2, 3), {})


def test_the_constructor_is_the_class():
    signature_of(Example).check((1,), {"y": 2})
    signature_of(Derived).check((1, 2), {})
    signature_of(Bare).check((), {})


def test_what_is_unknown_is_left_to_the_call():
    # dict says nothing of its arguments that inspect could read.
    signature_of(type("Mapping", (dict,), {})).check((1, 2, 3), {"x": 1})
    CallSignature("unknown", None).check((1, 2), {"x": 1})
    signature_of_method(type("Bound", (), {"m": max}), "m").check((1, 2), {})


def test_signatures_pickle_without_the_function():
    signature = pickle.loads(pickle.dumps(signature_of(every_kind)))
    assert str(signature) == str(signature_of(every_kind))
    with pytest.raises(TypeError, match="too many"):
        signature.check((1, 2, 3, 4), {"d": 1})


def test_defaults_are_not_kept():
    def heavy(a=bytearray(1_000_000)):  # noqa: B008 - that is the point
        return a

    assert len(pickle.dumps(signature_of(heavy))) < 1_000


KINDS = [
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.KEYWORD_ONLY,
    inspect.Parameter.VAR_KEYWORD,
]


@st.composite
def parameter_lists(draw):
    """Any list of parameters that Python allows."""
    parameters, names, optional = [], iter("abcdef"), False
    for kind in KINDS:
        single = kind in (KINDS[2], KINDS[4])
        if kind is KINDS[3]:
            optional = False
        for _ in range(draw(st.integers(0, 1 if single else 2))):
            if single:
                parameters.append(inspect.Parameter(f"{kind.name.lower()}", kind))
                continue
            has_default = draw(st.booleans())
            # By position, nothing required comes after something optional.
            optional = kind is not KINDS[3] and (optional or has_default)
            default = 0 if has_default or optional else inspect.Parameter.empty
            parameters.append(inspect.Parameter(next(names), kind, default=default))
    return parameters


@given(
    parameter_lists(),
    st.integers(0, 5),
    st.dictionaries(st.sampled_from("abcdefg"), st.just(0), max_size=4),
)
def test_it_accepts_exactly_what_python_accepts(parameters, count, kwargs):
    # The oracle is a real call: Signature.bind errs on some of Python 3.11's cases.
    namespace = {}
    exec(f"def f{inspect.Signature(parameters)}: pass", namespace)
    args = (0,) * count
    signature = CallSignature("f", parameters)
    try:
        namespace["f"](*args, **kwargs)
    except TypeError:
        with pytest.raises(TypeError, match=r"\(calling f\("):
            signature.check(args, kwargs)
    else:
        signature.check(args, kwargs)
