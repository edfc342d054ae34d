"""The timeline keeps what ran: also when asked twice, and when its worker has ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import shoal

pytestmark = pytest.mark.integration


@pytest.fixture
def session() -> Iterator[None]:
    shoal.init(num_cpus=2, address="local", log_to_driver=False)
    yield
    shoal.shutdown()


def names() -> list[str]:
    return [event["name"] for event in shoal.timeline()]


@pytest.mark.usefixtures("session")
def test_asking_takes_nothing_away() -> None:
    @shoal.remote
    def seen() -> None:
        return None

    @shoal.remote
    def ask() -> list[str]:
        return names()

    shoal.get([seen.remote(), seen.options(name="labelled").remote()])
    assert {"seen", "labelled"} <= set(shoal.get(ask.remote()))
    for _ in range(2):
        assert {"seen", "labelled"} <= set(names())
        assert names().count("seen") == 1


@pytest.mark.usefixtures("session")
def test_workers_that_have_ended() -> None:
    @shoal.remote(max_calls=1)
    def single() -> None:
        return None

    @shoal.remote
    class Short:
        def work(self) -> None:
            return None

    actor = Short.remote()
    shoal.get([single.remote(), actor.work.remote()])
    with pytest.raises(shoal.exceptions.ActorDiedError):
        shoal.get(actor.__ray_terminate__.remote())
    assert {"single", "Short.work"} <= set(names())


@pytest.mark.usefixtures("session")
def test_a_worker_that_ends_meanwhile_holds_nobody_up() -> None:
    @shoal.remote(max_retries=0)
    def crash() -> None:
        import os

        os._exit(1)

    refs = [crash.remote() for _ in range(4)]
    for _ in range(4):
        assert isinstance(names(), list)
    for ref in refs:
        with pytest.raises(shoal.exceptions.WorkerCrashedError):
            shoal.get(ref)
