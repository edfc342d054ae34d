"""The joblib backend: batches of joblib calls become calls on a Pool.

Theory: joblib cuts its work into batches, callables without arguments, and asks
the backend to run each and to call it back. A batch is one `apply_async` on a
`Pool` that lives as long as one `Parallel` call (or the `with` block around
several).

Large arguments are usually the same objects in every batch (the training data
of a grid search). They are put into the object store once and replaced by refs;
the processes then read them from shared memory, without a copy, and read-only.

It imports joblib; nothing else of shoal does.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
)

import shoal
from shoal.util.multiprocessing.pool import AsyncResult, Pool

# From this size on, sending an argument with every batch costs more than a put.
_SHARED_SIZE_BYTES_MIN = 100 * 1024
# Most calls share a handful of arguments; a job whose arguments are all large
# and different must not have all of them held in memory.
_SHARED_COUNT_MAX = 16


@dataclass(slots=True)
class _Outcome:
    """What joblib gets back for a batch: a result, or an error."""

    result: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class _SharedArgument:
    """Stands for a large argument on the way to a process."""

    ref: Any


class RayBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs joblib batches on the processes of a shoal session.

    Args:
        nesting_level: set by joblib.
        inner_max_num_threads: not supported; accepted for joblib's sake.
        ray_remote_args: options of the pool's actors, for example
            `{"num_gpus": 0.5}`.

    Without a running session one is started. `n_jobs=-1` means as many
    processes as the cluster has room for; more are never started.
    """

    supports_retrieve_callback = True

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        ray_remote_args: Mapping[str, Any] | None = None,
        **backend_kwargs: Any,
    ) -> None:
        super().__init__(
            nesting_level=nesting_level,
            inner_max_num_threads=inner_max_num_threads,
            **backend_kwargs,
        )
        self._ray_remote_args = dict(ray_remote_args or {})
        self._pool: Pool | None = None
        self._n_jobs = 1
        # Keyed by id(); the object itself is kept so that its id stays its own.
        self._shared: OrderedDict[int, tuple[Any, _SharedArgument]] = OrderedDict()

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many processes a request for `n_jobs` gets.

        Raises:
            ValueError: n_jobs is 0.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None or n_jobs == 1:
            return 1
        room = self._process_count_max()
        return max(room + 1 + n_jobs, 1) if n_jobs < 0 else min(n_jobs, room)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        prefer: str | None = None,
        require: str | None = None,
        **pool_options_of_joblib: Any,
    ) -> int:
        """Start the processes for a `Parallel` call; return how many."""
        self._n_jobs = self.effective_n_jobs(n_jobs)
        if self._n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        self._start_pool()
        return self._n_jobs

    def submit(
        self,
        func: Callable[[], Any],
        callback: Callable[[_Outcome], object] | None = None,
    ) -> AsyncResult:
        """Run one batch; call back with its outcome."""
        if self._pool is None:
            self._start_pool()
        assert self._pool is not None
        notify = callback or (lambda outcome: None)
        return self._pool.apply_async(
            self._with_shared_arguments(func),
            callback=lambda result: notify(_Outcome(result=result)),
            error_callback=lambda error: notify(_Outcome(error=error)),
        )

    # The name of `submit` in joblib before 1.5.
    apply_async = submit

    def retrieve_result_callback(self, out: _Outcome) -> Any:
        """The results of a batch, or the exception it ended with."""
        if out.error is not None:
            raise out.error
        return out.result

    def stop_call(self) -> None:
        """A `Parallel` call has ended: its large arguments are not needed more."""
        self._shared.clear()

    def terminate(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None
        self._shared.clear()
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Drop the batches under way, after one of them failed."""
        self.terminate()
        if ensure_ready:
            self._start_pool()

    def _start_pool(self) -> None:
        self._pool = Pool(self._n_jobs, ray_remote_args=self._ray_remote_args)

    def _process_count_max(self) -> int:
        if not shoal.is_initialized():
            shoal.init()
        total = shoal.cluster_resources()
        options = self._ray_remote_args
        needed = {
            "CPU": options.get("num_cpus", 1),
            "GPU": options.get("num_gpus", 0),
            **options.get("resources", {}),
        }
        room = [total.get(name, 0) / need for name, need in needed.items() if need]
        return max(int(min(room, default=total.get("CPU", 1))), 1)

    def _with_shared_arguments(self, batch: Any) -> Any:
        """The batch with its large arguments replaced by refs."""
        if not hasattr(batch, "items"):
            return batch
        light = copy.copy(batch)
        light.items = [self._share(*item) for item in batch.items]
        return light

    def _share(self, func: Any, args: Any, kwargs: Any) -> tuple[Any, Any, Any]:
        light_args = [self._shared_argument(arg) for arg in args]
        light_kwargs = {
            name: self._shared_argument(arg) for name, arg in kwargs.items()
        }
        if not any(
            isinstance(arg, _SharedArgument)
            for arg in (*light_args, *light_kwargs.values())
        ):
            return func, args, kwargs
        return _call_with_shared, (func, light_args, light_kwargs), {}

    def _shared_argument(self, arg: Any) -> Any:
        known = self._shared.get(id(arg))
        if known is not None:
            self._shared.move_to_end(id(arg))
            return known[1]
        if _size_bytes(arg) < _SHARED_SIZE_BYTES_MIN:
            return arg
        shared = _SharedArgument(shoal.put(arg))
        self._shared[id(arg)] = (arg, shared)
        if len(self._shared) > _SHARED_COUNT_MAX:
            self._shared.popitem(last=False)
        return shared


def _call_with_shared(func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """In a pool process: put the large arguments back and call."""
    return func(
        *(_resolve(arg) for arg in args),
        **{name: _resolve(arg) for name, arg in kwargs.items()},
    )


def _resolve(arg: Any) -> Any:
    return shoal.get(arg.ref) if isinstance(arg, _SharedArgument) else arg


def _size_bytes(arg: Any) -> int:
    """Size of array-like data; 0 for what is not known to be array-like."""
    memory_usage = getattr(arg, "memory_usage", None)
    if callable(memory_usage):  # pandas
        usage = memory_usage()
        return int(getattr(usage, "sum", lambda: usage)())
    # Arrays know their size; sparse matrices keep an array of their values.
    for owner in (arg, getattr(arg, "data", None)):
        size = getattr(owner, "nbytes", None)
        if isinstance(size, int):
            return size
    return 0
