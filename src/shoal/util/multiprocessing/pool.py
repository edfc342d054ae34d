"""`Pool`: the interface of `multiprocessing.Pool`, with actors as processes.

What is done for a call: its arguments are cut into chunks here, the engine
gives the chunks to processes, and the caller holds an AsyncResult or an
IMapIterator. Ordering and errors are decided in `_results`, distribution and
the death of processes in `_engine`.

Differences from the standard library: processes may be on other machines; a
process that dies is replaced and the call it was running raises ActorDiedError
(there, the pool hangs); `imap` reads its input as results are consumed.
"""

from __future__ import annotations

import math
import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import shoal
from shoal.util.multiprocessing._engine import Chunk, PoolEngine
from shoal.util.multiprocessing._process import CallStyle, PoolProcess
from shoal.util.multiprocessing._results import (
    AsyncResult,
    Callback,
    IMapIterator,
    Job,
)

__all__ = ["AsyncResult", "IMapIterator", "Pool"]

# Chunks of a map for each process: more than one, so that processes that finish
# early take work from slow ones.
_MAP_CHUNKS_PER_PROCESS = 4
# Chunks of an imap that are under way for each process.
_IMAP_CHUNKS_AHEAD_PER_PROCESS = 2


class Pool:
    """A pool of processes that run functions.

    The processes are actors, spread over the cluster. Without a running session
    one is started, with as many CPUs as processes.

    Args:
        processes: how many; None for one per CPU of the cluster.
        initializer: called with `initargs` in every process before it runs
            anything else.
        initargs: arguments of `initializer`.
        maxtasksperchild: replace a process after this many chunks (an `apply` is
            one chunk); None never does.
        context: accepted for the sake of `multiprocessing`; has no effect.
        ray_address: address of the cluster to connect to if none is connected.
        ray_remote_args: options of the actors, for example `{"num_gpus": 1}`.

    Raises:
        ValueError: `processes` is not positive, or more than the cluster has CPUs
            for; or an option is unknown.
        ActorDiedError: `initializer` raised.

    Blocks: until all processes have started.

    Example:
        >>> with Pool(4) as pool:  # doctest: +SKIP
        ...     pool.map(abs, [-1, -2])
        [1, 2]
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] | None = None,
        maxtasksperchild: int | None = None,
        context: object = None,
        ray_address: str | None = None,
        ray_remote_args: Mapping[str, Any] | None = None,
    ) -> None:
        if context is not None:
            warnings.warn(
                "The context of a Pool has no effect: its processes are actors, "
                "started by the session, not by fork or spawn",
                UserWarning,
                stacklevel=2,
            )
        if processes is not None and processes <= 0:
            raise ValueError(f"Processes in the pool must be >0, got {processes}")
        _connect(processes, ray_address)
        actor_options = dict(ray_remote_args or {})
        self._process_count = _check_process_count(processes, actor_options)
        actor_class = shoal.remote(PoolProcess).options(**actor_options)
        initializer_args = tuple(initargs or ())
        self._is_running = True
        self._iterators: weakref.WeakSet[IMapIterator] = weakref.WeakSet()
        self._engine = PoolEngine(
            self._process_count,
            lambda: actor_class.remote(initializer, initializer_args),
            maxtasksperchild,
        )
        # A forgotten pool finishes what was asked of it, then lets its processes go.
        weakref.finalize(self, self._engine.close_soon).atexit = False
        try:
            self._engine.wait_until_ready()
        except BaseException:
            self.terminate()
            raise

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_traceback: TracebackType | None,
    ) -> None:
        self.terminate()

    def __reduce__(self) -> str:
        raise NotImplementedError("a Pool cannot be pickled or sent to a process")

    def apply(
        self,
        func: Callable[..., Any],
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        kwds: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run `func(*args, **kwargs)` in a process and return its result.

        Args:
            func: the function.
            args: its positional arguments.
            kwargs: its keyword arguments.
            kwds: more of them: the name that `multiprocessing` has for `kwargs`.

        Raises:
            Whatever `func` raised, as its own type.
            ValueError: the pool is closed.
        """
        return self.apply_async(func, args, kwargs, kwds=kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
        *,
        kwds: Mapping[str, Any] | None = None,
    ) -> AsyncResult:
        """Run `func(*args, **kwargs)` in a process; return at once.

        Args:
            func: the function.
            args: its positional arguments.
            kwargs: its keyword arguments.
            callback: called in a thread of the driver with the result.
            error_callback: called there with the exception, if there is one.
            kwds: more keyword arguments: the name `multiprocessing` has for `kwargs`.
        """
        self._check_running()
        result = self._async_result(1, True, callback, error_callback)
        call = (tuple(args or ()), {**(kwargs or {}), **(kwds or {})})
        self._engine.submit([Chunk(result, 0, func, "positional and keyword", [call])])
        return result

    def map(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
    ) -> list[Any]:
        """Call `func` with each item; return the results in the order of the items.

        Args:
            func: takes one item.
            iterable: read completely before the first call.
            chunksize: items sent to a process together; None makes four chunks
                for each process.

        Raises:
            Whatever `func` raised for the first item it failed on. All other
            items are run nevertheless.
        """
        results: list[Any] = self.map_async(func, iterable, chunksize).get()
        return results

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult:
        """As `map`, but return at once; the result is a list."""
        return self._map_async(
            func, "one argument", iterable, chunksize, callback, error_callback
        )

    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
    ) -> list[Any]:
        """As `map`, but each item holds the positional arguments of one call."""
        results: list[Any] = self.starmap_async(func, iterable, chunksize).get()
        return results

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult:
        """As `starmap`, but return at once; the result is a list."""
        return self._map_async(
            func, "positional", iterable, chunksize, callback, error_callback
        )

    def imap(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
    ) -> IMapIterator:
        """Call `func` with each item; yield the results in the order of the items.

        Args:
            func: takes one item.
            iterable: read as results are consumed; may be endless.
            chunksize: items sent to a process together.

        Returns:
            An iterator whose `next` also takes a timeout. When `func` fails on an
            item, `next` raises that exception, and goes on after it.
        """
        return self._imap(func, iterable, chunksize, is_ordered=True)

    def imap_unordered(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
    ) -> IMapIterator:
        """As `imap`, but yield results as soon as they are there."""
        return self._imap(func, iterable, chunksize, is_ordered=False)

    def close(self) -> None:
        """Take no more calls. Processes end when the calls so far are done."""
        if not self._is_running:
            return
        self._is_running = False
        for iterator in list(self._iterators):
            iterator.submit_rest()
        self._engine.close()

    def terminate(self) -> None:
        """End the processes at once. Unfinished calls raise ActorDiedError."""
        self._is_running = False
        self._engine.terminate()

    def join(self) -> None:
        """Wait until all calls of a closed pool are done.

        Raises:
            ValueError: neither `close` nor `terminate` was called before.
        """
        if self._is_running:
            raise ValueError("Pool is still running: call close() or terminate() first")
        self._engine.join()

    def _map_async(
        self,
        func: Callable[..., Any],
        style: CallStyle,
        iterable: Iterable[Any],
        chunksize: int | None,
        callback: Callback | None,
        error_callback: Callback | None,
    ) -> AsyncResult:
        self._check_running()
        items = list(iterable)
        if chunksize is None:
            chunk_count = self._process_count * _MAP_CHUNKS_PER_PROCESS
            chunksize = max(math.ceil(len(items) / chunk_count), 1)
        _check_chunksize(chunksize)
        parts = [items[at : at + chunksize] for at in range(0, len(items), chunksize)]
        # Sent once and shared by all chunks, not pickled anew for each.
        shared = shoal.put(func) if len(parts) > 1 else func
        result = self._async_result(len(parts), False, callback, error_callback)
        self._engine.submit(
            [Chunk(result, at, shared, style, part) for at, part in enumerate(parts)]
        )
        return result

    def _async_result(
        self,
        chunk_count: int,
        is_single: bool,
        callback: Callback | None,
        error_callback: Callback | None,
    ) -> AsyncResult:
        return AsyncResult(
            chunk_count,
            is_single=is_single,
            callback=callback,
            error_callback=error_callback,
            run_callback=self._engine.run_callback,
        )

    def _imap(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int,
        *,
        is_ordered: bool,
    ) -> IMapIterator:
        self._check_running()
        _check_chunksize(chunksize)
        shared = shoal.put(func)

        def submit(job: Job, number: int, items: Sequence[Any]) -> None:
            # Keeps the pool itself alive, not only its engine: it must not count
            # as forgotten while this iterator may ask for more.
            self._engine.submit([Chunk(job, number, shared, "one argument", items)])

        iterator = IMapIterator(
            iter(iterable),
            chunksize=chunksize,
            is_ordered=is_ordered,
            chunks_ahead=self._process_count * _IMAP_CHUNKS_AHEAD_PER_PROCESS,
            submit=submit,
        )
        self._iterators.add(iterator)
        iterator.start()
        return iterator

    def _check_running(self) -> None:
        if not self._is_running:
            raise ValueError("Pool not running: it was closed or terminated")


def _connect(processes: int | None, address: str | None) -> None:
    if shoal.is_initialized():
        return
    if address is not None:
        shoal.init(address=address)
    elif "RAY_ADDRESS" in os.environ:
        shoal.init()
    else:
        shoal.init(num_cpus=processes)


def _check_process_count(processes: int | None, actor_options: dict[str, Any]) -> int:
    cpu_count = int(shoal.cluster_resources().get("CPU", 0))
    if processes is None:
        return max(cpu_count, 1)
    if "num_cpus" not in actor_options and processes > cpu_count:
        raise ValueError(
            f"Tried to start a pool with {processes} processes, but there are only "
            f"{cpu_count} CPUs in the cluster. Ask for fewer, or say in "
            "ray_remote_args what part of a CPU each takes, as in "
            '{"num_cpus": 0.5}'
        )
    return processes


def _check_chunksize(chunksize: int) -> None:
    if chunksize < 1:
        raise ValueError(f"chunksize must be >= 1, got {chunksize}")
