"""Values: what comes back equal, what comes back read-only and shared."""

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import gc
import threading
import uuid

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conformance_impl import ray, submodule

LARGE = 200_000  # float64 elements, 1.6 MB: stored, never inline
SIZES = [0, 10, LARGE]


@ray.remote
def identity(value):
    return value


@ray.remote
def ones(size):
    return np.ones(size)


@dataclasses.dataclass
class Record:
    name: str
    values: object


class Colour(enum.Enum):
    RED = 1


Pair = collections.namedtuple("Pair", "left right")


class Reduced:
    """Is rebuilt by a function of its own."""

    def __init__(self, secret):
        self.secret = secret

    def __reduce__(self):
        return Reduced, (self.secret + 1,)


class Handle:
    """Cannot be pickled by itself."""

    def __init__(self, number):
        self.number = number
        self.lock = threading.Lock()


# ---------------------------------------------------------------- ordinary values


@pytest.mark.parametrize(
    "value",
    [
        "text \N{SNOWMAN} \ud7ff",
        b"\0\xff" * 1000,
        -(2**70),
        complex(1, -2),
        float("inf"),
        {1, 2},
        frozenset({"a"}),
        [1, (2, {"three": [4]})],
        range(3),
        slice(1, 2),
        Ellipsis,
        datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC),
        decimal.Decimal("1.10"),
        fractions.Fraction(1, 3),
        uuid.UUID(int=5),
        collections.OrderedDict(b=1, a=2),
        collections.Counter("aab"),
        Pair(1, "x"),
        Colour.RED,
        int,
        len,
    ],
    ids=lambda value: type(value).__name__,
)
def test_ordinary_values(ray_session, value):
    """Values of the standard library come back equal, through put and a task."""
    for ref in (ray.put(value), identity.remote(value)):
        back = ray.get(ref)
        assert back == value
        assert type(back) is type(value)


@pytest.mark.parametrize("make", [bytearray, memoryview])
def test_mutable_bytes_come_back_as_bytes(ray_session, make):
    """A bytearray or memoryview comes back as bytes."""
    back = ray.get(ray.put(make(b"abc")))
    assert back == b"abc"
    assert type(back) is bytes


def test_nested_memoryview_comes_back_as_bytes(ray_session):
    """A memoryview inside a container comes back as bytes, too."""
    back = ray.get(identity.remote([memoryview(b"abc")]))
    assert back == [b"abc"]
    assert type(back[0]) is bytes


def test_recursive_value(ray_session):
    """A value that contains itself keeps its shape."""
    loop = [1]
    loop.append(loop)
    back = ray.get(ray.put(loop))
    assert back[1] is back


def test_shared_parts_stay_shared(ray_session):
    """What occurs twice in one object is one object again."""
    part = {"n": 1}
    back = ray.get(identity.remote(Record("shared", [part, part])))
    assert back.values[0] is back.values[1]


def test_deeply_nested_value(ray_session):
    """A few hundred levels of nesting are no problem."""
    value = []
    for _ in range(200):
        value = [value]
    assert ray.get(ray.put(value)) == value


def test_reduce_is_used(ray_session):
    """A class's own `__reduce__` decides."""
    assert ray.get(ray.put(Reduced(1))).secret == 2


def test_class_of_the_test_keeps_its_identity(ray_session):
    """An instance of an importable class is an instance of that very class."""
    back = ray.get(identity.remote(Record("r", np.arange(3))))
    assert type(back) is Record
    assert back.name == "r"
    assert back.values.tolist() == [0, 1, 2]


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize("size", SIZES)
def test_arrays_from_get_are_read_only(ray_session, size):
    """Arrays that were put or returned are read-only, at every size."""
    for ref in (ray.put(np.ones(size)), ones.remote(size)):
        array = ray.get(ref)
        assert array.sum() == size
        assert not array.flags.writeable


def test_writing_to_an_array_raises(ray_session):
    """Writing raises ValueError (destination is read-only); a copy can be written."""
    array = ray.get(ray.put(np.ones(LARGE)))
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 2
    mine = array.copy()
    mine[0] = 2
    assert array[0] == 1


@pytest.mark.parametrize("size", SIZES)
def test_arrays_as_arguments_are_read_only(ray_session, size):
    """Array arguments are read-only in the task, given by value or by ref."""

    @ray.remote
    def look(array):
        return array.flags.writeable, float(array.sum())

    array = np.ones(size)
    refs = [look.remote(array), look.remote(ray.put(array))]
    assert ray.get(refs) == [(False, size)] * 2
    assert array.flags.writeable


@pytest.mark.parametrize("wrap", [lambda a: a, lambda a: {"x": [a, 1]}, lambda a: (a,)])
def test_large_arrays_are_not_copied(ray_session, wrap):
    """Two gets of a large array share its memory, also inside containers."""

    def array_in(value):
        while not isinstance(value, np.ndarray):
            value = value["x"] if isinstance(value, dict) else value[0]
        return value

    ref = ray.put(wrap(np.arange(LARGE)))
    first, second = array_in(ray.get(ref)), array_in(ray.get(ref))
    assert first.ctypes.data == second.ctypes.data
    assert not first.flags.writeable
    assert (first == np.arange(LARGE)).all()


def test_arrays_are_aligned(ray_session):
    """Large arrays lie at addresses that suit vector instructions."""
    value = {"odd": b"x" * 13, "a": np.ones(LARGE), "b": np.ones(LARGE, np.float32)}
    back = ray.get(ray.put(value))
    assert back["a"].flags.aligned
    assert back["b"].ctypes.data % 8 == 0


def test_array_outlives_its_ref(ray_session):
    """A fetched array stays good after the ref is gone and others were stored."""
    ref = ray.put(np.full(LARGE, 7.0))
    array = ray.get(ref)
    view = array[10:20]
    del ref, array
    gc.collect()
    for number in range(20):
        ray.put(np.full(LARGE, float(number)))
    assert (view == 7.0).all()


def test_array_in_a_task_outlives_the_argument(ray_session):
    """A task may return a part of its argument."""

    @ray.remote
    def part(array):
        return array[5:8]

    assert ray.get(part.remote(np.arange(LARGE))).tolist() == [5, 6, 7]


@pytest.mark.parametrize(
    "array",
    [
        np.array(5.0),
        np.empty((0, 3)),
        np.arange(24, dtype=np.int16).reshape(2, 3, 4),
        np.asfortranarray(np.arange(60_000.0).reshape(200, 300)),
        np.arange(100_000)[::2],
        np.array(["a", "bcd"]),
        np.array([{"a": 1}, None], dtype=object),
        np.array([(1, 2.5)], dtype=[("n", "i4"), ("x", "f8")]),
        np.array(["2024-01-01"], dtype="datetime64[D]"),
        np.arange(4, dtype=">i4"),
        np.float32(1.5),
    ],
    ids=str,
)
def test_kinds_of_arrays(ray_session, array):
    """Shapes, orders, strides and element types of every kind come back equal."""
    back = ray.get(identity.remote(array))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert (back == array).all()


def test_many_arrays_in_one_value(ray_session):
    """A value may hold hundreds of arrays of different sizes."""
    arrays = {f"k{n}": np.full(n * 37, n) for n in range(300)}
    back = ray.get(identity.remote(arrays))
    assert all((back[key] == array).all() for key, array in arrays.items())


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize("rows", [3, 100_000])
def test_pandas(ray_session, rows):
    """A data frame comes back equal, with index, text and missing values."""
    frame = pd.DataFrame(
        {
            "number": np.arange(rows, dtype=float),
            "text": [f"row {n % 7}" for n in range(rows)],
            "kind": pd.Categorical(["a", "b", "a"] * (rows // 3) + ["b"] * (rows % 3)),
            "time": pd.date_range("2024-01-01", periods=rows, freq="s"),
        }
    )
    frame.loc[1, "number"] = np.nan
    frame.index = frame.index[::-1]
    for ref in (ray.put(frame), identity.remote(frame)):
        pd.testing.assert_frame_equal(ray.get(ref), frame)


def test_pandas_results_can_be_worked_with(ray_session):
    """A fetched frame can be computed with; its own copy can be changed."""
    frame = ray.get(ray.put(pd.DataFrame({"x": np.arange(LARGE)})))
    assert frame.x.sum() == LARGE * (LARGE - 1) // 2
    mine = frame.copy()
    mine.loc[0, "x"] = 5
    assert frame.x[0] == 0


@pytest.mark.parametrize("rows", [3, 100_000])
def test_arrow(ray_session, rows):
    """An Arrow table comes back equal; a large one is not copied."""
    table = pa.table({"n": np.arange(rows), "s": [str(n) for n in range(rows)]})
    ref = identity.remote(table)
    first, second = ray.get(ref), ray.get(ref)
    assert first.equals(table)
    if rows > 1000:
        buffers = [t["n"].chunk(0).buffers()[1].address for t in (first, second)]
        assert buffers[0] == buffers[1]


# ---------------------------------------------------------------- serializers


def test_registered_serializer(ray_session):
    """A registered serializer makes a class travel; the deserializer goes with it."""
    util = submodule("util")
    with pytest.raises(TypeError):
        ray.put(Handle(1))
    util.register_serializer(
        Handle, serializer=lambda handle: handle.number, deserializer=Handle
    )
    try:
        assert ray.get(ray.put(Handle(3))).number == 3
        number = ray.remote(lambda handle: handle.number)
        assert ray.get(number.remote(Handle(4))) == 4
    finally:
        util.deregister_serializer(Handle)
    with pytest.raises(TypeError):
        ray.put(Handle(1))


def test_inspect_serializability(ray_session, capsys):
    """`inspect_serializability` says whether, and which part is to blame."""
    inspect = submodule("util").inspect_serializability
    assert inspect([1, 2], name="good") == (True, set())
    lock = threading.Lock()

    def uses_lock():
        return lock

    good, failures = inspect(uses_lock, name="bad")
    assert not good
    assert any(failure.obj is lock for failure in failures)
    assert "lock" in capsys.readouterr().out


class Opaque:
    """Holds something unpicklable, and its repr does not show it."""

    def __init__(self):
        self.guard = threading.Lock()

    def __repr__(self):
        return "opaque"


@pytest.mark.beyond_ray(reason="Ray's message repeats the value, not the way to a part")
def test_message_names_the_path(ray_session):
    """The error of an unpicklable value names where in the value it is."""
    with pytest.raises(TypeError) as caught:
        ray.put({"settings": [1, Opaque()]})
    assert "settings" in str(caught.value)
    assert "guard" in str(caught.value)
