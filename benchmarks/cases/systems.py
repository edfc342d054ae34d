"""The systems behind one small interface, for the cases that all of them can run.

Every system is used the way its own documentation does it: with its defaults, told
only the number of workers, and with its quickest idiom for many tasks at once (Dask's
`map`, the pools' `apply_async` and `submit`). A call costs at most one Python
function call above the system's own.

The module imports nothing at load, so that start-up can be measured through it.
"""

import importlib
import os
from collections.abc import Callable
from typing import Any, Protocol


def nop(_argument: object = None) -> None:
    """The task of every rate: no work, no result."""


def own_pid(_argument: object = None) -> int:
    """A task that tells which process ran it."""
    return os.getpid()


class System(Protocol):
    """A running system that can run functions elsewhere."""

    def start(self, cpus: int) -> None:
        """Import the system and start it with so many workers."""

    def caller(self, function: Callable[..., Any]) -> Callable[[], Any]:
        """A callable that runs the function once elsewhere and awaits it."""

    def submitter(self, function: Callable[..., Any]) -> Callable[[int], list[Any]]:
        """A callable that submits n tasks at once and returns their handles."""

    def collect(self, handles: list[Any]) -> list[Any]:
        """The results of submitted tasks, in order."""

    def stop(self) -> None:
        """Shut the system down."""


def load_ray_api(name: str) -> Any:
    """The module of a system with Ray's interface, quiet as a benchmark needs it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    return importlib.import_module(name)


class RayLike:
    """shoal or Ray: the same code measures both."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.api: Any = None

    def start(self, cpus: int) -> None:
        """Import the module and start one node."""
        self.api = load_ray_api(self._name)
        self.api.init(num_cpus=cpus, logging_level="ERROR")

    def caller(self, function: Callable[..., Any]) -> Callable[[], Any]:
        """One task and its result."""
        remote = self.api.remote(function)
        get = self.api.get
        return lambda: get(remote.remote())

    def submitter(self, function: Callable[..., Any]) -> Callable[[int], list[Any]]:
        """n tasks, their refs."""
        remote = self.api.remote(function)
        return lambda n: [remote.remote() for _ in range(n)]

    def collect(self, handles: list[Any]) -> list[Any]:
        """One get of all."""
        results: list[Any] = self.api.get(handles)
        return results

    def stop(self) -> None:
        """shutdown()."""
        self.api.shutdown()


class Dask:
    """dask.distributed with a local cluster of one-threaded worker processes."""

    def __init__(self) -> None:
        self.client: Any = None

    def start(self, cpus: int) -> None:
        """One scheduler in this process and a worker process per CPU."""
        distributed = importlib.import_module("distributed")
        self.client = distributed.Client(n_workers=cpus, threads_per_worker=1)

    def caller(self, function: Callable[..., Any]) -> Callable[[], Any]:
        """submit with pure=False: without it Dask would answer from its cache."""
        submit = self.client.submit
        return lambda: submit(function, pure=False).result()

    def submitter(self, function: Callable[..., Any]) -> Callable[[int], list[Any]]:
        """map, Dask's quickest way to submit many."""
        return lambda n: list(self.client.map(function, range(n), pure=False))

    def collect(self, handles: list[Any]) -> list[Any]:
        """gather."""
        results: list[Any] = self.client.gather(handles)
        return results

    def stop(self) -> None:
        """Close the client and the cluster it started."""
        self.client.shutdown()
        self.client.close()


class Executor:
    """concurrent.futures.ProcessPoolExecutor, or loky's executor with its interface."""

    def __init__(self, *, is_loky: bool) -> None:
        self._is_loky = is_loky
        self._pool: Any = None

    def start(self, cpus: int) -> None:
        """Make the pool; its processes start with the first task."""
        if self._is_loky:
            loky = importlib.import_module("loky")
            self._pool = loky.get_reusable_executor(max_workers=cpus)
        else:
            futures = importlib.import_module("concurrent.futures")
            self._pool = futures.ProcessPoolExecutor(cpus)

    def caller(self, function: Callable[..., Any]) -> Callable[[], Any]:
        """submit and result."""
        submit = self._pool.submit
        return lambda: submit(function).result()

    def submitter(self, function: Callable[..., Any]) -> Callable[[int], list[Any]]:
        """n calls of submit."""
        submit = self._pool.submit
        return lambda n: [submit(function) for _ in range(n)]

    def collect(self, handles: list[Any]) -> list[Any]:
        """The result of each future."""
        return [future.result() for future in handles]

    def stop(self) -> None:
        """Shut down and wait for the processes."""
        self._pool.shutdown(wait=True)


class MpPool:
    """multiprocessing.Pool with the default start method."""

    def __init__(self) -> None:
        self._pool: Any = None

    def start(self, cpus: int) -> None:
        """Start the worker processes."""
        self._pool = importlib.import_module("multiprocessing").Pool(cpus)

    def caller(self, function: Callable[..., Any]) -> Callable[[], Any]:
        """apply."""
        apply = self._pool.apply
        return lambda: apply(function)

    def submitter(self, function: Callable[..., Any]) -> Callable[[int], list[Any]]:
        """n calls of apply_async."""
        apply_async = self._pool.apply_async
        return lambda n: [apply_async(function) for _ in range(n)]

    def collect(self, handles: list[Any]) -> list[Any]:
        """The result of each handle."""
        return [handle.get() for handle in handles]

    def stop(self) -> None:
        """Terminate, the quickest end that Pool has."""
        self._pool.terminate()
        self._pool.join()


def make_system(peer: str) -> System:
    """The system of a peer's name in the catalogue.

    Raises:
        ValueError: there is no such system.
    """
    if peer in ("shoal", "ray"):
        return RayLike(peer)
    if peer == "dask":
        return Dask()
    if peer == "mp_pool":
        return MpPool()
    if peer in ("futures", "loky"):
        return Executor(is_loky=peer == "loky")
    raise ValueError(
        f"{peer!r} is no system; expected shoal, ray, dask, mp_pool, futures or loky"
    )
