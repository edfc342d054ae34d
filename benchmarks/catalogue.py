"""What is measured: the figures, the programs that produce them, and the peers.

Pure data. A *figure* is one row of the table; a *program* is a module of
`benchmarks.cases` that produces several figures in one process, because starting
some of the peers takes longer than measuring them. Which peers a program can measure
is written here; what a peer has no counterpart for stays empty in the table.
"""

from dataclasses import dataclass, field

SHOAL = "shoal"
RAY = "ray"
DASK = "dask"
FUTURES = "futures"
MP_POOL = "mp_pool"
LOKY = "loky"
FLOOR = "floor"

RAY_API = (SHOAL, RAY)
POOLS = (FUTURES, MP_POOL, LOKY)
SYSTEMS = (*RAY_API, DASK, *POOLS)

PEER_TITLES = {
    SHOAL: "shoal",
    RAY: "Ray",
    DASK: "Dask",
    FUTURES: "futures",
    MP_POOL: "mp.Pool",
    LOKY: "loky",
    FLOOR: "floor",
}


@dataclass(frozen=True)
class Figure:
    """One row of the table."""

    key: str
    """Name in the JSON and on the command line."""
    title: str
    unit: str
    """Unit of the value: /s, GB/s, s, ms, MB, B, or empty for a plain count."""
    is_higher_better: bool = True
    floor: str = ""
    """What the floor column means in this row; empty when there is no floor."""


@dataclass(frozen=True)
class Program:
    """One module of `benchmarks.cases` and the figures it produces."""

    module: str
    figures: tuple[Figure, ...]
    peers: tuple[str, ...]
    timeout_s: float = 600.0
    """After so long the process is ended; figures it has printed still count."""
    optional_peers: tuple[str, ...] = field(default=())
    """Peers measured only with --slow, because they take many minutes."""


_PINGPONG = "raw Unix-socket ping-pong between two Python processes"
_STREAM = "framed Unix-socket stream echoed by a Python process"
_COPY = "np.copyto of 100 MB into warm memory"

TASKS = Program(
    module="tasks",
    peers=SYSTEMS,
    figures=(
        Figure("task_sync", "task, sync", "/s", floor=_PINGPONG),
        Figure("task_async_1k", "tasks async, 1,000 at once", "/s", floor=_STREAM),
        Figure("task_async_100k", "tasks async, 100,000 at once", "/s", floor=_STREAM),
    ),
)
SUBMITTERS = Program(
    module="submitters",
    peers=(*RAY_API, DASK),
    figures=(
        Figure("task_submitters", "tasks async, 4 submitters", "/s", floor=_STREAM),
    ),
)
ACTORS = Program(
    module="actors",
    peers=RAY_API,
    figures=(
        Figure("actor_sync", "actor call, sync", "/s", floor=_PINGPONG),
        Figure("actor_async", "actor calls, async", "/s", floor=_STREAM),
        Figure("actor_threaded", "actor calls, 16 threads", "/s", floor=_STREAM),
        Figure("actor_n_n", "actor calls, n:n", "/s", floor=_STREAM),
        Figure("actor_args", "actor calls with arguments", "/s", floor=_STREAM),
        Figure("actor_ref_args", "actor calls with a ref argument", "/s"),
        Figure("async_actor_sync", "async-actor call, sync", "/s", floor=_PINGPONG),
        Figure("async_actor_async", "async-actor calls, async", "/s", floor=_STREAM),
    ),
)
DASK_ACTORS = Program(
    module="dask_actors",
    peers=(DASK,),
    figures=tuple(
        figure
        for figure in ACTORS.figures
        if figure.key in ("actor_sync", "actor_async", "actor_args")
    ),
)
OBJECTS = Program(
    module="objects",
    peers=(*RAY_API, DASK),
    figures=(
        Figure("put_small", "put, small", "/s", floor="pickle and a dict insertion"),
        Figure("get_small", "get, small", "/s", floor="a dict look-up and unpickle"),
        Figure("put_100mb", "put of 100 MB", "GB/s", floor=_COPY),
        Figure(
            "get_100mb_ms",
            "get of 100 MB",
            "ms",
            is_higher_better=False,
            floor="an array made over mapped memory",
        ),
        Figure("get_read_100mb", "get of 100 MB, all bytes read", "GB/s", floor=_COPY),
    ),
)
REFS = Program(
    module="refs",
    peers=RAY_API,
    figures=(
        Figure(
            "ref_10k",
            "get of a ref holding 10,000 refs",
            "/s",
            floor="unpickling 10,000 ids",
        ),
        Figure(
            "wait_1k",
            "wait over 1,000 refs one at a time",
            "rounds/s",
            floor="1,000 frames of a Unix-socket stream",
        ),
    ),
)
DASK_REFS = Program(module="dask_refs", peers=(DASK,), figures=REFS.figures[1:])
CREATION = Program(
    module="actor_creation",
    peers=(*RAY_API, DASK),
    figures=(
        Figure(
            "actors_100",
            "100 actors created and called",
            "s",
            is_higher_better=False,
            floor="100 forks of an interpreter, one byte from each",
        ),
    ),
)
STARTUP = Program(
    module="startup",
    peers=SYSTEMS,
    figures=(
        Figure(
            "first_result",
            "interpreter start to first result",
            "s",
            is_higher_better=False,
            floor="interpreter start",
        ),
        Figure("shutdown", "shutdown returns", "s", is_higher_better=False),
        Figure(
            "shutdown_gone",
            "shutdown until no process is left",
            "s",
            is_higher_better=False,
            floor="one forked child per core killed and reaped",
        ),
    ),
)
IDLE = Program(
    module="idle",
    peers=SYSTEMS,
    figures=(
        Figure(
            "idle_pss",
            "idle memory (PSS)",
            "MB",
            is_higher_better=False,
            floor="one forked interpreter per core",
        ),
        Figure(
            "idle_processes",
            "idle processes, driver included",
            "",
            is_higher_better=False,
            floor="driver and one child per core",
        ),
        Figure(
            "idle_worker_threads",
            "threads in a worker, most",
            "",
            is_higher_better=False,
            floor="one",
        ),
        Figure("idle_threads", "threads of all processes", "", is_higher_better=False),
    ),
)
PENDING = Program(
    module="pending",
    peers=(SHOAL,),
    optional_peers=(RAY, DASK, *POOLS),
    timeout_s=3600.0,
    figures=(
        Figure(
            "pending_bytes",
            "1,000,000 tasks pending, driver memory each",
            "B",
            is_higher_better=False,
            floor="a dict entry, an id and a slotted object",
        ),
        Figure("pending_submit", "1,000,000 tasks, submitted", "/s"),
        Figure("pending_drain", "1,000,000 tasks, run and returned", "/s"),
        Figure("pending_returned", "1,000,000 tasks, share that returned", ""),
    ),
)

PROGRAMS = (
    TASKS,
    SUBMITTERS,
    ACTORS,
    DASK_ACTORS,
    OBJECTS,
    REFS,
    DASK_REFS,
    CREATION,
    STARTUP,
    IDLE,
    PENDING,
)

FIGURES = {figure.key: figure for program in PROGRAMS for figure in program.figures}

FLOORS = Program(
    module="floors",
    peers=(FLOOR,),
    figures=(
        *(figure for figure in FIGURES.values() if figure.floor),
        Figure("pipe_pingpong", "multiprocessing.Pipe ping-pong", "/s"),
    ),
)
"""One program measures every floor; its figures carry the keys of the cases."""

FIGURES["pipe_pingpong"] = FLOORS.figures[-1]

REPEATS_MAX = {
    ("task_async_100k", RAY): 2,
    ("task_async_100k", DASK): 1,
    ("actors_100", RAY): 3,
}
"""Figures that take a peer a minute or more are not repeated as often."""


def programs(peers: tuple[str, ...], *, slow: bool) -> list[tuple[Program, str]]:
    """Every (program, peer) to run in one round, in order.

    Args:
        peers: the peers wanted.
        slow: also those a peer takes many minutes for.
    """
    chosen: list[tuple[Program, str]] = []
    for program in (FLOORS, *PROGRAMS):
        willing = program.peers + (program.optional_peers if slow else ())
        chosen.extend((program, peer) for peer in peers if peer in willing)
    return chosen
