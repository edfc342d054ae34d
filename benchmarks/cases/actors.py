"""Rates of empty actor calls, in each shape a program makes them.

The actors take 0 CPUs, so that all of them exist at once on any machine.
"""

from collections.abc import Callable
from typing import Any

from benchmarks.cases.measure import Session, rate
from benchmarks.cases.systems import RayLike

ARGUMENTS = (7, "name", [1.5, 2.5, 3.5], {"key": "value", "flag": True})
THREADS = 16


class Plain:
    """An actor with empty methods."""

    def nop(self) -> None:
        """No arguments, no result."""

    def take(self, *arguments: object) -> None:
        """Any arguments, no result."""


class Asynchronous:
    """An actor whose methods are coroutines."""

    async def nop(self) -> None:
        """No arguments, no result."""


def calls_at_once(api: Any, method: Any, *arguments: object) -> Callable[[int], None]:
    """A burst of n calls of one method, awaited together."""
    return lambda n: api.get([method.remote(*arguments) for _ in range(n)])


def many_to_many(api: Any, cpus: int) -> Callable[[int], None]:
    """A burst in which one client actor per CPU calls every server actor in turn."""
    servers = [api.remote(num_cpus=0)(Plain).remote() for _ in range(cpus)]

    @api.remote(num_cpus=0)
    class Client:
        def call(self, handles: list[Any], count: int) -> None:
            methods = [handle.nop for handle in handles]
            size = len(methods)
            api.get([methods[i % size].remote() for i in range(count)])

    clients = [Client.remote() for _ in range(cpus)]
    return lambda n: api.get(
        [client.call.remote(servers, n // cpus) for client in clients]
    )


def take_figures(session: Session, api: Any) -> None:
    """Measure every shape; each makes the actor it needs."""
    seconds = session.seconds
    count = session.scaled(1_000, quick=100)

    def one_at_a_time(actor_class: type) -> float:
        method = api.remote(num_cpus=0)(actor_class).remote().nop
        return rate(lambda: api.get(method.remote()), seconds)

    def at_once(burst: Callable[[int], None], size: int = count) -> float:
        return size * rate(lambda: burst(size), seconds)

    def fresh(actor_class: type, **options: int) -> Any:
        return api.remote(num_cpus=0, **options)(actor_class).remote()

    session.take("actor_sync", lambda: one_at_a_time(Plain))
    session.take("actor_async", lambda: at_once(calls_at_once(api, fresh(Plain).nop)))
    session.take(
        "actor_threaded",
        lambda: at_once(calls_at_once(api, fresh(Plain, max_concurrency=THREADS).nop)),
    )
    session.take(
        "actor_n_n",
        lambda: at_once(many_to_many(api, session.cpus), count * session.cpus),
    )
    session.take(
        "actor_args",
        lambda: at_once(calls_at_once(api, fresh(Plain).take, *ARGUMENTS)),
    )
    session.take(
        "actor_ref_args",
        lambda: at_once(calls_at_once(api, fresh(Plain).take, api.put(0))),
    )
    session.take("async_actor_sync", lambda: one_at_a_time(Asynchronous))
    session.take(
        "async_actor_async",
        lambda: at_once(calls_at_once(api, fresh(Asynchronous).nop)),
    )


def main() -> None:
    """Measure shoal or Ray."""
    session = Session()
    system = RayLike(session.peer)
    system.start(session.cpus)
    take_figures(session, system.api)
    system.stop()


if __name__ == "__main__":
    main()
