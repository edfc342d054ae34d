"""Grid search of a classifier over handwritten digits: one process, then all cores.

Run it with `make quickstart`, or `python examples/quickstart.py`; `--fast` does the
same with a grid of a second or two.

The job is real: a support vector machine is trained and scored for every pair of `C`
and `gamma` of a grid and every fold of a cross validation, on the 1,797 images of
digits that come with scikit-learn. One fit of one fold is one task. The same grid is
first run by an ordinary loop, so that the speed-up at the end compares like with like:
same code, same data, one thread per process in both (a numerical library that starts
threads of its own would otherwise use all cores in the loop as well).

What it shows of shoal: `put` stores the data once for all tasks, `wait` hands out
results in the order they finish, and an actor gathers log messages from every process.
"""

import argparse
import datetime
import itertools
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

# Numerical libraries read these when they are loaded, so they stand before the imports
# below; the workers inherit them.
THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
for setting in THREAD_SETTINGS:
    os.environ[setting] = "1"

SCRIPT_BEGAN_AT = time.time()

import numpy as np  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import (  # noqa: E402
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402
from sklearn.model_selection import StratifiedKFold  # noqa: E402
from sklearn.svm import SVC  # noqa: E402

import shoal  # noqa: E402

IMPORTS_DONE_AT = time.time()


@dataclass(frozen=True)
class Fit:
    """One piece of work: these parameters, trained and scored on this fold."""

    c: float
    gamma: float
    fold: int


@dataclass(frozen=True)
class Digits:
    """Images as rows of 64 grey values in 0..1, their digits, and the folds."""

    images: np.ndarray[Any, np.dtype[np.float64]]
    labels: np.ndarray[Any, np.dtype[np.int64]]
    train_rows: list[np.ndarray[Any, np.dtype[np.int64]]]
    test_rows: list[np.ndarray[Any, np.dtype[np.int64]]]


class Stopwatch:
    """How long each named part took, in seconds, in the order they ran."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began


def load_data(fold_count: int, image_count: int | None) -> Digits:
    """The digits that come with scikit-learn, cut into folds the same way each time."""
    images, labels = load_digits(return_X_y=True)
    images, labels = images[:image_count] / 16.0, labels[:image_count]
    folds = StratifiedKFold(fold_count, shuffle=True, random_state=0)
    splits = list(folds.split(images, labels))
    return Digits(images, labels, [a for a, _ in splits], [b for _, b in splits])


def score(digits: Digits, fit: Fit) -> float:
    """Share of the fold's test images that the trained classifier gets right."""
    train, test = digits.train_rows[fit.fold], digits.test_rows[fit.fold]
    model = SVC(C=fit.c, gamma=fit.gamma)
    model.fit(digits.images[train], digits.labels[train])
    return float(model.score(digits.images[test], digits.labels[test]))


@shoal.remote
class LoggingActor:
    """Keeps what the tasks report, by process, each message with its time."""

    def __init__(self) -> None:
        self.logs: dict[int, list[str]] = defaultdict(list)

    def log(self, pid: int, message: str) -> None:
        stamp = datetime.datetime.now().strftime("%H:%M:%S.%f")[:-3]
        self.logs[pid].append(f"{stamp}  {message}")

    def get_logs(self) -> dict[int, list[str]]:
        return dict(self.logs)


@shoal.remote
def evaluate(digits: Digits, fit: Fit, logger: Any) -> tuple[Fit, float]:
    """`score` as a task, which also tells the logging actor what it did."""
    accuracy = score(digits, fit)
    noted = logger.log.remote(
        os.getpid(),
        f"C={fit.c:.3g} gamma={fit.gamma:.3g} fold {fit.fold}: {accuracy:.4f}",
    )
    shoal.get(noted)  # so that the message is there when the result is
    return fit, accuracy


def progress_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<18}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[best]}"),
        console=console,
    )


def search_in_one_process(
    digits: Digits, fits: list[Fit], progress: Progress
) -> dict[Fit, float]:
    """The ordinary loop that the parallel search is compared with."""
    bar = progress.add_task("one process", total=len(fits), best="")
    scores: dict[Fit, float] = {}
    for fit in fits:
        scores[fit] = score(digits, fit)
        progress.update(bar, advance=1, best=f"best fold {max(scores.values()):.4f}")
    return scores


def search_in_parallel(
    digits_ref: shoal.ObjectRef[Digits],
    fits: list[Fit],
    logger: Any,
    progress: Progress,
) -> dict[Fit, float]:
    """All fits as tasks; results are taken as they finish, whatever their order."""
    bar = progress.add_task("shoal, all cores", total=len(fits), best="")
    pending = [evaluate.remote(digits_ref, fit, logger) for fit in fits]
    scores: dict[Fit, float] = {}
    while pending:
        ready, pending = shoal.wait(pending, num_returns=1)
        fit, accuracy = shoal.get(ready[0])
        scores[fit] = accuracy
        progress.update(bar, advance=1, best=f"best fold {max(scores.values()):.4f}")
    return scores


def best_parameters(scores: dict[Fit, float]) -> tuple[float, float, float]:
    """`C`, `gamma` and mean accuracy over the folds of the best pair of the grid."""
    folds: dict[tuple[float, float], list[float]] = defaultdict(list)
    # Sorted, so that of two pairs that are equally good both searches name the same.
    for fit in sorted(scores, key=lambda fit: (fit.c, fit.gamma, fit.fold)):
        folds[fit.c, fit.gamma].append(scores[fit])
    c, gamma = max(folds, key=lambda pair: float(np.mean(folds[pair])))
    return c, gamma, float(np.mean(folds[c, gamma]))


def print_messages(console: Console, logs: dict[int, list[str]]) -> None:
    count = sum(len(messages) for messages in logs.values())
    console.print(
        f"\nThe logging actor has {count} messages from {len(logs)} processes, "
        "for example:"
    )
    for pid, messages in sorted(logs.items()):
        console.print(f"  pid {pid}: {messages[-1]}", highlight=False)


def print_times(console: Console, watch: Stopwatch) -> None:
    table = Table("part", "seconds", title="Where the time went")
    table.columns[1].justify = "right"
    for name, seconds in watch.seconds.items():
        table.add_row(name, f"{seconds:.3f}")
    console.print(table)


def print_result(
    console: Console, watch: Stopwatch, scores: dict[Fit, float], cpu_count: float
) -> None:
    alone = watch.seconds["search, one process"]
    together = watch.seconds["search, shoal"]
    c, gamma, accuracy = best_parameters(scores)
    table = Table(title="Result", show_header=False)
    table.add_row("best parameters", f"C={c:.3g}, gamma={gamma:.3g}")
    table.add_row("accuracy, mean over the folds", f"{accuracy:.2%}")
    table.add_row("fits", str(len(scores)))
    table.add_row("one process", f"{alone:.2f} s")
    table.add_row(f"shoal on {cpu_count:g} cores", f"{together:.2f} s")
    table.add_row("speed-up over one process", f"{alone / together:.2f} x")
    console.print(table)
    console.print(
        "Both searches ran the same fits with one thread per process. The time of the "
        "parallel one includes loading scikit-learn in the workers."
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fast", action="store_true", help="a grid of a second or two")
    parser.add_argument("--num-cpus", type=int, help="cores to use (default: all)")
    parser.add_argument(
        "--make-began-at",
        type=float,
        metavar="TIMESTAMP",
        help="when `make` started, to tell how long the set-up took",
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    console = Console()
    watch = Stopwatch()
    if arguments.make_began_at is not None:
        watch.seconds["environment set-up"] = SCRIPT_BEGAN_AT - arguments.make_began_at
    watch.seconds["imports"] = IMPORTS_DONE_AT - SCRIPT_BEGAN_AT

    with watch.part("load the digits"):
        digits = load_data(2, 300) if arguments.fast else load_data(5, None)
    size = 3 if arguments.fast else 8
    grid = itertools.product(np.logspace(-1, 2, size), np.logspace(-3, 0, size))
    fits = [
        Fit(float(c), float(gamma), fold)
        for c, gamma in grid
        for fold in range(len(digits.test_rows))
    ]
    console.print(
        f"Grid search of a support vector machine: {len(fits)} fits over "
        f"{len(digits.labels)} images of handwritten digits.\n"
    )

    with watch.part("search, one process"), progress_bar(console) as progress:
        expected = search_in_one_process(digits, fits, progress)

    with watch.part("shoal.init"):
        shoal.init(num_cpus=arguments.num_cpus)
    cpu_count = shoal.cluster_resources()["CPU"]
    with watch.part("start the logging actor"):
        logger = LoggingActor.remote()
        shoal.get(logger.get_logs.remote())
    with watch.part("put the data"):
        digits_ref = shoal.put(digits)
    with watch.part("search, shoal"), progress_bar(console) as progress:
        scores = search_in_parallel(digits_ref, fits, logger, progress)
    with watch.part("collect the log"):
        logs = shoal.get(logger.get_logs.remote())
    with watch.part("shoal.shutdown"):
        shoal.shutdown()

    if scores != expected:
        raise RuntimeError("the two searches found different accuracies")
    print_messages(console, logs)
    print_times(console, watch)
    print_result(console, watch, scores, cpu_count)


if __name__ == "__main__":
    main()
