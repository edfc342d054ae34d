"""Objects: the argument rules and results of get, put and wait."""

import threading
import time

import pytest
from conformance_impl import ray


@ray.remote
def identity(value):
    return value


@ray.remote
def fail(message):
    raise ValueError(message)


@ray.remote
def held(gate, value):
    gate.wait()
    return value


# ---------------------------------------------------------------- get


def test_get_one_and_many(ray_session):
    """`get` of a ref is its value; of a list, the values in the list's order."""
    refs = [ray.put(number) for number in range(5)]
    assert ray.get(refs[3]) == 3
    assert ray.get(refs[::-1]) == [4, 3, 2, 1, 0]


def test_get_duplicates_and_empty(ray_session):
    """Duplicates are allowed, an empty list gives an empty list."""
    ref = identity.remote(7)
    assert ray.get([ref, ref]) == [7, 7]
    assert ray.get([]) == []


@pytest.mark.parametrize("wrong", [(), 3, "text", None, {"a": 1}])
def test_get_refuses_what_is_no_ref_or_list(ray_session, wrong):
    """Anything but a ref or a list of refs raises ValueError."""
    with pytest.raises(ValueError):
        ray.get(wrong)


def test_get_refuses_a_tuple_of_refs(ray_session):
    """A tuple of refs raises ValueError too."""
    with pytest.raises(ValueError):
        ray.get((ray.put(1),))


def test_get_refuses_a_list_with_something_else(ray_session):
    """A list with an element that is no ref raises TypeError."""
    with pytest.raises(TypeError):
        ray.get([ray.put(1), 2])


def test_get_timeout_is_keyword_only(ray_session):
    """The timeout has to be named."""
    with pytest.raises(TypeError):
        ray.get(ray.put(1), 1)


def test_get_timeout(ray_session, gate):
    """The timeout is in seconds and raises GetTimeoutError, which is a TimeoutError."""
    ref = held.remote(gate, "late")
    start = time.monotonic()
    with pytest.raises(ray.exceptions.GetTimeoutError) as caught:
        ray.get(ref, timeout=0.2)
    assert 0.15 < time.monotonic() - start < 5
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, ray.exceptions.RayError)
    gate.open()
    assert ray.get(ref) == "late"


def test_get_timeout_zero(ray_session, gate):
    """`timeout=0` does not block: a value that is there comes, else the error."""
    pending = held.remote(gate, 1)
    assert ray.get(ray.put(5), timeout=0) == 5
    with pytest.raises(ray.exceptions.GetTimeoutError):
        ray.get(pending, timeout=0)
    gate.open()
    ray.get(pending)


def test_get_negative_timeout_waits(ray_session):
    """`timeout=-1` waits without limit."""
    assert ray.get(identity.remote(1), timeout=-1) == 1


def test_get_list_times_out_as_a_whole(ray_session, gate):
    """One value that is missing times out the whole list."""
    pending = held.remote(gate, 1)
    with pytest.raises(ray.exceptions.GetTimeoutError):
        ray.get([ray.put(0), pending], timeout=0.1)
    gate.open()
    assert ray.get([ray.put(0), pending]) == [0, 1]


def test_get_gives_a_new_object_each_time(ray_session):
    """Each get returns an object of its own; changing it changes nobody else's."""
    ref = ray.put({"items": [1]})
    first, second = ray.get(ref), ray.get(ref)
    first["items"].append(2)
    assert second == ray.get(ref) == {"items": [1]}


def test_get_raises_the_error_of_a_list(ray_session):
    """An error in a list is raised; of several, the first in the list's order."""
    refs = [identity.remote(1), fail.remote("first"), fail.remote("second")]
    ray.wait(refs, num_returns=3)
    with pytest.raises(ValueError, match="first"):
        ray.get(refs)


def test_get_may_be_repeated(ray_session):
    """A value, and an error, can be fetched any number of times."""
    good, bad = identity.remote("x"), fail.remote("again")
    for _ in range(3):
        assert ray.get(good) == "x"
        with pytest.raises(ValueError, match="again"):
            ray.get(bad)


def test_get_from_threads(ray_session, gate):
    """Several threads of the driver may submit and get at the same time."""
    pending = held.remote(gate, "opened")
    seen = []

    def work(number):
        seen.append((ray.get(identity.remote(number)), ray.get(pending)))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    gate.open()
    for thread in threads:
        thread.join(30)
    assert sorted(seen) == [(number, "opened") for number in range(8)]


# ---------------------------------------------------------------- put


@pytest.mark.parametrize("value", [None, False, 0, "", b"", [], {}, (), 10**40, 1.5])
def test_put_and_get(ray_session, value):
    """Any picklable value comes back equal and of its own type."""
    back = ray.get(ray.put(value))
    assert back == value
    assert type(back) is type(value)


def test_put_takes_a_copy(ray_session):
    """What is put is the value at that moment."""
    value = [1]
    ref = ray.put(value)
    value.append(2)
    assert ray.get(ref) == [1]


def test_put_gives_a_new_ref_each_time(ray_session):
    """Two puts of one value are two objects."""
    value = "same"
    assert ray.put(value) != ray.put(value)


def test_put_refuses_a_ref(ray_session):
    """A ref itself cannot be put: TypeError; inside a list it can."""
    ref = ray.put(1)
    with pytest.raises(TypeError):
        ray.put(ref)
    assert ray.get(ray.put([ref])) == [ref]


def test_put_refuses_what_cannot_be_serialised(ray_session):
    """A value that cannot be pickled raises TypeError at once."""
    with pytest.raises(TypeError):
        ray.put({"guard": threading.Lock()})


def test_put_with_owner_is_refused(ray_session):
    """`_owner` was removed: ValueError."""
    with pytest.raises(ValueError):
        ray.put(1, _owner=object())


def test_put_of_a_ray_error_raises_at_get(ray_session):
    """A stored RayError is raised by get, also one that was put as a value."""
    ref = ray.put(ray.exceptions.RaySystemError("stored"))
    with pytest.raises(ray.exceptions.RaySystemError):
        ray.get(ref)


def test_put_of_an_ordinary_exception_is_a_value(ray_session):
    """Any other exception object is a value like others."""
    back = ray.get(ray.put(ValueError("a value")))
    assert isinstance(back, ValueError)
    assert back.args == ("a value",)


# ---------------------------------------------------------------- wait


def test_wait_splits_and_keeps_order(ray_session):
    """At most num_returns are ready, the rest is not; both keep the input's order."""
    refs = [ray.put(number) for number in range(5)]
    ready, rest = ray.wait(refs, num_returns=2)
    assert (len(ready), len(rest)) == (2, 3)
    assert ready == [ref for ref in refs if ref in ready]
    assert rest == [ref for ref in refs if ref not in ready]


def test_wait_defaults_to_one(ray_session, new_gate):
    """By default one ref is waited for, whichever is first."""
    slow, quick = new_gate("slow"), new_gate("quick")
    refs = [held.remote(slow, "slow"), held.remote(quick, "quick")]
    quick.open()
    ready, rest = ray.wait(refs)
    assert (ready, rest) == ([refs[1]], [refs[0]])
    slow.open()
    assert ray.wait(rest)[0] == [refs[0]]


def test_wait_all(ray_session):
    """`num_returns` equal to the length waits for all."""
    refs = [identity.remote(number) for number in range(10)]
    assert ray.wait(refs, num_returns=10) == (refs, [])


def test_wait_timeout_returns_what_is_ready(ray_session, gate):
    """After the timeout (seconds) fewer than num_returns may be ready."""
    done, pending = identity.remote(1), held.remote(gate, 2)
    ray.get(done)
    start = time.monotonic()
    ready, rest = ray.wait([pending, done], num_returns=2, timeout=0.2)
    assert 0.15 < time.monotonic() - start < 5
    assert (ready, rest) == ([done], [pending])
    gate.open()
    ray.get(pending)


def test_wait_timeout_zero(ray_session, gate):
    """`timeout=0` only looks."""
    pending = held.remote(gate, 1)
    assert ray.wait([pending], timeout=0) == ([], [pending])
    gate.open()
    ray.get(pending)
    assert ray.wait([pending], timeout=0) == ([pending], [])


def test_wait_counts_an_error_as_ready(ray_session):
    """A failed task is ready; wait never raises its error."""
    ref = fail.remote("unseen")
    assert ray.wait([ref], timeout=30) == ([ref], [])
    with pytest.raises(ValueError):
        ray.get(ref)


def test_wait_on_nothing(ray_session):
    """An empty list gives two empty lists."""
    assert ray.wait([]) == ([], [])


def test_wait_without_fetching(ray_session):
    """`fetch_local=False` says ready without bringing the object here."""
    ref = ray.put(bytes(1_000_000))
    assert ray.wait([ref], fetch_local=False) == ([ref], [])


@pytest.mark.parametrize("wrong", [3, None, "text", (1, 2)])
def test_wait_refuses_what_is_no_list(ray_session, wrong):
    """Anything but a list raises TypeError."""
    with pytest.raises(TypeError):
        ray.wait(wrong)


def test_wait_refuses_a_single_ref(ray_session):
    """A ref that is not in a list raises TypeError, a foreign element too."""
    ref = ray.put(1)
    with pytest.raises(TypeError):
        ray.wait(ref)
    with pytest.raises(TypeError):
        ray.wait([ref, 1])


def test_wait_refuses_duplicates(ray_session):
    """The same ref twice raises ValueError."""
    ref = ray.put(1)
    with pytest.raises(ValueError):
        ray.wait([ref, ref])


@pytest.mark.parametrize(
    "options", [{"num_returns": 0}, {"num_returns": -1}, {"num_returns": 3}]
)
def test_wait_checks_num_returns(ray_session, options):
    """num_returns below one or above the number of refs raises ValueError."""
    with pytest.raises(ValueError):
        ray.wait([ray.put(1), ray.put(2)], **options)


def test_wait_refuses_a_negative_timeout(ray_session):
    """A negative timeout raises ValueError."""
    with pytest.raises(ValueError):
        ray.wait([ray.put(1)], timeout=-1)


def test_wait_options_are_keyword_only(ray_session):
    """num_returns and timeout have to be named."""
    with pytest.raises(TypeError):
        ray.wait([ray.put(1)], 1)


def test_wait_one_at_a_time(ray_session):
    """The usual loop: take what is ready, wait for the rest, until nothing is left."""
    rest = [identity.remote(number) for number in range(60)]
    seen = []
    while rest:
        ready, rest = ray.wait(rest)
        assert len(ready) == 1
        seen.extend(ray.get(ready))
    assert sorted(seen) == list(range(60))
