"""Values come back equal, buffers come back read-only and uncopied, refs are found."""

from __future__ import annotations

import collections
import ctypes
import enum
import gc
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from shoal._core.base import object_ref
from shoal._core.base.object_ref import ObjectRef
from shoal._core.serial import serializer
from shoal._core.serial.pickler import (
    deregister_serializer,
    dumps_in_band,
    register_serializer,
)
from shoal._core.serial.ref_capture import note_written
from shoal._core.serial.serializer import (
    ALIGNMENT_BYTES,
    Serialized,
    deserialize,
    serialize,
)


def ref(number: int, owner: str = "") -> ObjectRef[Any]:
    return ObjectRef(number.to_bytes(28, "little"), owner)


def extent_of(value: object) -> bytes:
    """The extent, after a check that both ways of writing it agree."""
    packed = serialize(value)
    extent = packed.to_bytes()
    assert packed.size == len(extent)
    target = bytearray(b"\xaa" * (packed.size + 100))
    packed.write_into(memoryview(target))
    assert bytes(target[: packed.size]) == extent
    assert target[packed.size :] == b"\xaa" * 100, "wrote past its end"
    return extent


def round_trip(value: object) -> Any:
    extent = extent_of(value)
    again = deserialize(memoryview(extent + b"something else behind it"))
    assert type(again) is type(deserialize(extent))
    return again


class Colour(enum.Enum):
    RED = 1


@dataclass
class Point:
    x: float
    y: list[int]


Pair = collections.namedtuple("Pair", "left right")

PLAIN = [
    None,
    True,
    7,
    10**30,
    1.5,
    "",
    "text",
    "\ud800",
    b"",
    b"bytes",
    "x" * 40_000,
    b"x" * 40_000,
    "é" * 100_000,
    b"x" * 1_000_000,
    [b"x" * 100_000, "y" * 100_000, b"z" * 100_000],
    (1, "a", 2.0),
    {"a": [1, {2, 3}], "b": frozenset((4,))},
    Colour.RED,
    Point(1.0, [2]),
    Pair(1, 2),
    collections.OrderedDict(a=1),
    collections.Counter("abca"),
    list(range(50_000)),
    [str(i) for i in range(20_000)],
    range(5),
    slice(1, 2),
    Ellipsis,
    NotImplemented,
    int,
    len,
]


@pytest.mark.parametrize("value", PLAIN, ids=lambda v: repr(v)[:20])
def test_plain_values_come_back(value: object) -> None:
    again = round_trip(value)
    assert again == value
    assert type(again) is type(value)
    assert not serialize(value).buffers


@pytest.mark.parametrize("value", PLAIN, ids=lambda v: repr(v)[:20])
def test_a_plain_extent_is_nothing_but_the_stream(value: object) -> None:
    packed = serialize(value)
    assert packed.to_bytes() == packed.pickled
    assert pickle.loads(packed.pickled) == value


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.integers(70_000, 70_100).map(bytes),
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner)
    ),
    max_leaves=20,
)


@given(values)
@settings(max_examples=200, deadline=None)
def test_any_nested_value_comes_back(value: object) -> None:
    assert round_trip(value) == value


@given(st.lists(values, min_size=2, max_size=5))
@settings(max_examples=50, deadline=None)
def test_one_value_leaves_no_trace_in_the_next(many: list[object]) -> None:
    first = [serialize(value).to_bytes() for value in many]
    assert [serialize(value).to_bytes() for value in many] == first


def test_shared_and_cyclic_parts_keep_their_shape() -> None:
    shared: list[Any] = [1]
    shared.append(shared)
    again = round_trip([shared, shared])
    assert again[0] is again[1]
    assert again[0][1] is again[0]


class TestBytesLike:
    @pytest.mark.parametrize("size", [0, 10, 5_000, 200_000])
    def test_top_level_comes_back_as_bytes(self, size: int) -> None:
        content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        assert type(round_trip(content)) is bytes
        for value in (content, bytearray(content), memoryview(content)):
            again = round_trip(value)
            assert type(again) is bytes
            assert again == content

    @pytest.mark.parametrize("size", [10, 5_000, 200_000])
    def test_views_inside_come_back_as_bytes(self, size: int) -> None:
        content = b"ab" * size
        assert round_trip([memoryview(content)]) == [content]
        assert round_trip([memoryview(content)[::2]]) == [content[::2]]

    def test_a_bytearray_that_changes_after_serialize_does_no_harm(self) -> None:
        inner = bytearray(b"a" * 200_000)
        packed = serialize([inner])
        inner[:] = b"b" * 200_000
        assert deserialize(packed.to_bytes()) == [b"a" * 200_000]

    def test_large_bytes_are_handed_over_not_copied(self) -> None:
        content = b"x" * 1_000_000
        before = sys.getrefcount(content)
        packed = serialize({"k": (content,)})
        assert sys.getrefcount(content) == before + 1
        assert deserialize(packed.to_bytes()) == {"k": (content,)}


def arrays() -> Iterator[Any]:
    for dtype in "?bhilqBHILQefdgFDG":
        yield np.arange(10).astype(dtype)
    yield np.array([], float)
    yield np.zeros((0, 3))
    yield np.array(3.5)
    yield np.arange(24.0).reshape(2, 3, 4)
    yield np.asfortranarray(np.arange(12.0).reshape(3, 4))
    yield np.arange(24.0).reshape(4, 6)[::2, 1::2]
    yield np.arange(10)[::-1]
    yield np.arange(10, dtype=">i4")
    yield np.array(["a", "bcd"])
    yield np.array([b"a", b"bcd"])
    yield np.array(["2020-01-01", "NaT"], "M8[ns]")
    yield np.array(["2020-01-01", "NaT"], ">M8[D]")
    yield np.array("2020-01-01", "M8[s]")
    yield np.zeros((3, 4), "M8[s]")[::2, ::3]
    yield np.array([1, 2], "m8[s]")
    yield np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")])
    yield np.arange(1_000_000.0)
    yield np.random.default_rng(0).random(2**16).astype("f4")


class TestArrays:
    @pytest.mark.parametrize(
        "array", list(arrays()), ids=lambda a: f"{a.dtype}{a.shape}"
    )
    def test_an_array_comes_back_equal_and_read_only(self, array: Any) -> None:
        again = round_trip(array)
        np.testing.assert_array_equal(again, array)
        assert again.dtype == array.dtype
        assert again.shape == array.shape
        assert not again.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            again[...] = 0

    @given(npst.arrays(npst.scalar_dtypes(), npst.array_shapes(max_side=4)))
    @settings(max_examples=150, deadline=None)
    def test_any_array_comes_back(self, array: Any) -> None:
        again = round_trip([array, array])
        np.testing.assert_array_equal(again[0], array)
        assert again[0].dtype == array.dtype
        assert again[0] is again[1]

    def test_object_arrays_subclasses_and_scalars_come_back(self) -> None:
        mixed = np.array([1, "a", None], object)
        assert list(round_trip(mixed)) == list(mixed)
        masked = np.ma.masked_array([1, 2], [True, False])
        assert round_trip(masked).tolist() == [None, 2]
        assert round_trip(np.float64(2.5)) == 2.5
        described = np.zeros(2, np.dtype("f8", metadata={"unit": "m"}))
        assert round_trip(described).dtype.metadata == {"unit": "m"}
        assert round_trip(np.zeros(2, "V5")).dtype == "V5"

    def test_buffers_are_aligned_and_not_copied_on_reading(self) -> None:
        value = {"a": np.arange(3.0), "b": [np.arange(5), b"x"], "c": "text"}
        packed = serialize(value)
        assert len(packed.buffers) == 2
        memory = (ctypes.c_char * (packed.size + 128))()
        skip = -ctypes.addressof(memory) % ALIGNMENT_BYTES
        target = memoryview(memory).cast("B")[skip:]
        packed.write_into(target)
        again = deserialize(target)
        start = ctypes.addressof(memory) + skip
        for array in (again["a"], again["b"][0]):
            address = array.ctypes.data
            assert start < address < start + packed.size
            assert address % ALIGNMENT_BYTES == 0

    def test_buffers_to_be_written_are_the_values_own_memory(self) -> None:
        array = np.zeros(1000)
        packed = serialize(array)
        array[0] = 5
        assert deserialize(packed.to_bytes())[0] == 5

    def test_an_array_keeps_the_payload_alive(self) -> None:
        class Memory(bytearray):
            pass

        payload = Memory(extent_of([np.arange(1000)]))
        alive = weakref.ref(payload)
        array = deserialize(memoryview(payload))[0][10:20]
        del payload
        gc.collect()
        assert alive() is not None
        assert array.tolist() == list(range(10, 20))
        del array
        gc.collect()
        assert alive() is None

    def test_large_copies_without_numpy_are_the_same(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        value = [np.arange(500_000), b"x" * 2_000_000]
        with_numpy = extent_of(value)
        packed = serialize(value)
        target = bytearray(packed.size)
        monkeypatch.delitem(sys.modules, "numpy")
        packed.write_into(memoryview(target))
        assert bytes(target) == with_numpy


class TestFrames:
    def test_pandas(self) -> None:
        frame = pd.DataFrame({"a": range(1000), "b": 1.5, "c": ["x"] * 1000})
        pd.testing.assert_frame_equal(round_trip(frame), frame)
        assert serialize(frame).buffers

    def test_arrow(self) -> None:
        table = pa.table({"a": list(range(1000)), "b": ["x"] * 1000})
        assert round_trip(table).equals(table)
        assert serialize(table).buffers


class TestByValue:
    def test_functions_and_classes_that_cannot_be_imported(self) -> None:
        offset = 10

        class Local:
            def __init__(self, x: int) -> None:
                self.x = x + offset

        add = round_trip(lambda x: x + offset)
        assert add(1) == 11
        assert round_trip(Local)(1).x == 11
        assert round_trip(Local(5)).x == 15
        assert round_trip(Point) is Point

    def test_functions_written_together_share_their_globals_and_no_others(self) -> None:
        source = "n = 0\ndef up():\n    global n\n    n += 1\n    return n\n"
        space: dict[str, Any] = {"__name__": "__main__"}
        exec(source + "def look():\n    return n\n", space)
        up, look = round_trip([space["up"], space["look"]])
        assert (up(), look()) == (1, 1)
        # A writer that is used again must not remember the globals of before.
        assert serialize(space["up"]).pickled == serialize(space["up"]).pickled


class TestRefs:
    def test_refs_are_found_once_each_in_order(self) -> None:
        one, two = ref(1, "here"), ref(2)
        packed = serialize({"a": two, "b": [one, two, ref(1, "here")]})
        assert list(packed.refs) == [two, one]
        again = deserialize(packed.to_bytes())
        assert again == {"a": two, "b": [one, two, one]}
        assert again["b"][0].owner_address() == "here"

    def test_values_without_refs_report_none(self) -> None:
        serialize([ref(1)])
        assert not serialize([1]).refs
        assert not serialize(5).refs

    def test_beside_buffers(self) -> None:
        packed = serialize([np.arange(5), ref(3)])
        assert list(packed.refs) == [ref(3)]
        assert deserialize(packed.to_bytes())[1] == ref(3)

    def test_a_ref_inside_an_objects_own_pickle_is_found(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(object_ref.hooks, "written", note_written)
        packed = serialize(Envelope([ref(4)]))
        assert list(packed.refs) == [ref(4)]
        assert deserialize(packed.to_bytes()).content == [ref(4)]

    def test_a_ref_pickled_elsewhere_goes_to_the_hook(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        escaped: list[Any] = []
        monkeypatch.setattr(
            object_ref.hooks,
            "written",
            lambda r: note_written(r) or escaped.append(r),
        )
        serialize([ref(5)])
        assert escaped == []
        pickle.dumps(ref(6))
        cloudpickle.dumps([ref(7)])
        dumps_in_band(ref(8))
        assert escaped == [ref(6), ref(7), ref(8)]

    def test_a_value_written_inside_another_has_its_own_refs(self) -> None:
        inner: list[Serialized] = []

        class Putting:
            def __reduce__(self) -> Any:
                inner.append(serialize([ref(10)]))
                return int, ()

        packed = serialize([ref(1), Putting(), ref(2)])
        assert list(packed.refs) == [ref(1), ref(2)]
        assert list(inner[0].refs) == [ref(10)]
        assert not note_written(ref(3))

    def test_threads_keep_their_refs_apart(self) -> None:
        barrier = threading.Barrier(4)
        found: dict[int, list[Any]] = {}

        class Meeting:
            def __reduce__(self) -> Any:
                barrier.wait(10)
                return int, ()

        def write(number: int) -> None:
            packed = serialize([ref(number), Meeting(), ref(number + 100)])
            found[number] = list(packed.refs)

        threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert found == {n: [ref(n), ref(n + 100)] for n in range(4)}


class Envelope:
    """Pickles its content itself, as some libraries do."""

    def __init__(self, content: object) -> None:
        self.content = content

    def __reduce__(self) -> Any:
        return Envelope._open, (pickle.dumps(self.content),)

    @staticmethod
    def _open(content: bytes) -> Envelope:
        return Envelope(pickle.loads(content))


class Connection:
    """Can't be pickled without help."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.lock = threading.Lock()


class TestRegistered:
    def test_a_registered_class_is_written_as_it_says(self) -> None:
        register_serializer(
            Connection, serializer=lambda c: c.url, deserializer=lambda u: Connection(u)
        )
        try:
            assert round_trip([Connection("db://x")])[0].url == "db://x"
        finally:
            deregister_serializer(Connection)
        with pytest.raises(TypeError, match="lock"):
            serialize(Connection("db://x"))

    def test_deregistering_brings_cloudpickles_own_way_back(self) -> None:
        register_serializer(property, serializer=lambda p: 1, deserializer=lambda n: n)
        assert round_trip(property(len)) == 1
        deregister_serializer(property)
        assert round_trip(property(len)).fget is len
        deregister_serializer(Connection)

    def test_only_classes_can_be_registered(self) -> None:
        with pytest.raises(TypeError, match="class"):
            register_serializer("C", serializer=str, deserializer=str)  # type: ignore[arg-type]


class Explosive:
    def __reduce__(self) -> Any:
        raise ConnectionError("no line")


class TestErrors:
    def test_what_cannot_be_pickled_is_named_by_its_path(self) -> None:
        value = {"a": [1, 2, Connection("u")]}
        with pytest.raises(TypeError) as caught:
            serialize(value, "the argument", "arg")
        text = str(caught.value)
        assert text.startswith("Could not serialize the argument: cannot pickle")
        assert "arg['a'][2].lock, of type _thread.lock" in text
        assert "register_serializer" in text

    def test_errors_of_the_values_own_code_come_out_with_a_note(self) -> None:
        with pytest.raises(ConnectionError, match="no line") as caught:
            serialize([Explosive()])
        assert "value[0], of type" in caught.value.__notes__[0]

    def test_only_code_of_the_value_is_told_as_the_cause(self) -> None:
        class Wrong:
            def __reduce__(self) -> Any:
                raise TypeError("mine")

        with pytest.raises(TypeError) as caught:
            serialize([threading.Lock()])
        assert caught.value.__cause__ is None
        with pytest.raises(TypeError) as caught:
            serialize([Wrong()])
        assert repr(caught.value.__cause__) == "TypeError('mine')"

    def test_too_deep(self) -> None:
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        with pytest.raises(TypeError, match="nested too deeply"):
            serialize(deep)

    def test_a_failure_leaves_nothing_behind(self) -> None:
        expected = serialize((1, "a")).to_bytes()
        for bad in (threading.Lock(), Explosive(), [np.arange(3), threading.Lock()]):
            with pytest.raises((TypeError, ConnectionError)):
                serialize([ref(1), "before", bad])
            packed = serialize((1, "a"))
            assert packed.to_bytes() == expected
            assert not packed.refs
            assert not note_written(ref(1))

    @pytest.mark.parametrize("payload", [b"", b"\x00rubbish", b"hello"])
    def test_what_is_no_extent_is_refused(self, payload: bytes) -> None:
        with pytest.raises(ValueError, match="starts with"):
            deserialize(payload)


@pytest.mark.parametrize(
    "large", [[object() for _ in range(2_000)], "x" * 500_000, [np.zeros(1)] * 2_000]
)
def test_a_writer_that_has_seen_much_is_not_kept(
    large: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle: list[Any] = []
    monkeypatch.setattr(serializer, "_idle", idle)
    serialize((1,))
    (writer,) = idle
    serialize([1, np.zeros(1)])
    assert idle == [writer]
    serialize(large)
    assert idle == []


def test_numpy_is_not_imported_by_the_package() -> None:
    code = (
        "import sys\n"
        "import shoal._core.serial.failures, shoal._core.serial.functions\n"
        "from shoal._core.serial.serializer import serialize\n"
        "serialize([b'x' * 3_000_000]).to_bytes()\n"
        "print([m for m in ('numpy', 'pandas', 'pyarrow') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "[]\n", done.stderr
