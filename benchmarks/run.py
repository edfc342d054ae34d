"""Measures shoal, its peers and the floors, in one go: `python -m benchmarks.run`.

Rounds are the outer loop: each round measures every program once for every peer, in
another order of the peers each time, so that a machine that grows slower or busier
does so for everybody. Every measurement is a process of its own, and the next one
starts when all processes of the former are gone.

Writes the result file after every round, so that an interrupted run is not lost.
Does not judge by its exit status unless asked to with --check.
"""

import argparse
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from benchmarks import (
    catalogue,
    environments,
    host,
    processes,
    readme_table,
    report,
)
from benchmarks.cases.startup import SPAWNED_AT
from benchmarks.catalogue import FLOOR, PEER_TITLES, REPEATS_MAX, SYSTEMS, Program
from benchmarks.environments import Interpreter, PeerUnavailable

_FOLDER = host.ROOT / "benchmarks"
_SCHEMA = 1
_PATIENCE_S = 20.0
"""How long the processes of a finished case may take to go."""

Result = dict[str, Any]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--cases",
        default="",
        help="figures or programs to measure, separated by commas (default: all)",
    )
    parser.add_argument(
        "--peers",
        default=",".join((*SYSTEMS, FLOOR)),
        help="columns to measure, separated by commas (default: %(default)s)",
    )
    parser.add_argument("--repeats", type=int, help="rounds (default: 5; quick: 1)")
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test: small sizes, one round"
    )
    parser.add_argument(
        "--slow", action="store_true", help="a million tasks also for the peers"
    )
    parser.add_argument("--cpus", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=_FOLDER / "results")
    parser.add_argument("--json", type=Path, help="result file (default: in --out)")
    parser.add_argument(
        "--venvs",
        type=Path,
        default=Path(os.environ.get("SHOAL_BENCH_VENVS", _FOLDER / ".venvs")),
        help="folder of the peers' environments (or $SHOAL_BENCH_VENVS)",
    )
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="PEER=PATH",
        help="use this interpreter for a peer; shoal then comes from the checkout",
    )
    parser.add_argument(
        "--show", type=Path, metavar="JSON", help="show a result file, measure nothing"
    )
    parser.add_argument(
        "--against", type=Path, metavar="JSON", help="compare with an earlier result"
    )
    parser.add_argument(
        "--readme", type=Path, help="put the table between the marks of this file"
    )
    parser.add_argument(
        "--check", action="store_true", help="exit 1 unless every target is reached"
    )
    options = parser.parse_args(arguments)
    if options.repeats is None:
        options.repeats = 1 if options.quick else 5
    options.peers = _known(parser, options.peers, PEER_TITLES, "peer")
    options.cases = _known(parser, options.cases, _case_names(), "case")
    options.python = _interpreters(parser, options.python)
    return options


def _case_names() -> list[str]:
    """Everything --cases understands."""
    return [*catalogue.FIGURES, *(program.module for program in catalogue.PROGRAMS)]


def _known(
    parser: argparse.ArgumentParser, text: str, names: Any, kind: str
) -> tuple[str, ...]:
    """Split a list of names; an unknown one ends the program with the known ones."""
    chosen = tuple(filter(None, text.split(",")))
    for name in chosen:
        if name not in names:
            parser.error(f"unknown {kind} {name!r}; known are {', '.join(names)}")
    return chosen


def _interpreters(
    parser: argparse.ArgumentParser, pairs: Sequence[str]
) -> dict[str, Path]:
    """The values of --python, by peer."""
    chosen = {}
    for pair in pairs:
        peer, separator, path = pair.partition("=")
        if not separator:
            parser.error(f"--python takes PEER=PATH, not {pair!r}")
        for name in _known(parser, peer, [*PEER_TITLES, environments.REPORT], "peer"):
            # Not resolved: a virtual environment's python is a link.
            chosen[name] = Path(path).absolute()
    return chosen


def find_interpreters(options: argparse.Namespace, result: Result) -> dict[str, Any]:
    """The interpreters of all peers that can be measured; why the others can't."""
    interpreters = {}
    for peer in options.peers:
        try:
            found = environments.find(peer, options.venvs, options.python)
        except PeerUnavailable as reason:
            result["skipped"][peer] = str(reason)
            say(f"{PEER_TITLES[peer]} is skipped: {reason}")
        else:
            interpreters[peer] = found
            result["peers"][peer] = dict(found.versions)
    return interpreters


def wanted_figures(
    program: Program, peer: str, round_number: int, cases: tuple[str, ...]
) -> list[str]:
    """The figures of a program to measure for a peer in this round."""
    return [
        figure.key
        for figure in program.figures
        if round_number < REPEATS_MAX.get((figure.key, peer), sys.maxsize)
        and (
            not cases
            or figure.key in cases
            or any(
                other.module in cases and figure in other.figures
                for other in catalogue.PROGRAMS
            )
        )
    ]


def measure_round(
    options: argparse.Namespace,
    interpreters: dict[str, Interpreter],
    round_number: int,
    result: Result,
) -> None:
    """Measure everything once."""
    peers = [peer for peer in options.peers if peer in interpreters]
    turn = round_number % max(1, len(peers))
    order = tuple(peers[turn:] + peers[:turn])
    for program, peer in catalogue.programs(order, slow=options.slow):
        figures = wanted_figures(program, peer, round_number, options.cases)
        if figures:
            run = measure(program, peer, figures, interpreters[peer], options)
            run["repeat"] = round_number
            result["runs"].append(run)
            say(
                f"round {round_number + 1}/{options.repeats}  {program.module:<14}"
                f" {peer:<8} {run['seconds']:6.1f} s"
            )
            for reason, keys in report.grouped(run["errors"]).items():
                say(f"  failed: {', '.join(keys)}: {reason}")


def measure(
    program: Program,
    peer: str,
    figures: list[str],
    interpreter: Interpreter,
    options: argparse.Namespace,
) -> Result:
    """Run one program for one peer and wait until all its processes are gone."""
    command = [str(interpreter.python), "-m", f"benchmarks.cases.{program.module}"]
    command += ["--peer", peer, "--cpus", str(options.cpus)]
    command += ["--only", ",".join(figures), *(["--quick"] * options.quick)]
    noise = host.noise()
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as log:
        spawned_at = time.monotonic()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=log,
            cwd=host.ROOT,
            env=interpreter.environment({SPAWNED_AT: str(spawned_at)}),
        )
        in_time = wait_for_exit(process, program.timeout_s)
        killed = processes.clear_family(_PATIENCE_S)
        gone_at = time.monotonic()
        measured, errors = read_figures(output, gone_at)
        _explain_missing(figures, measured, errors, process.returncode, in_time, log)
    return {
        "program": program.module,
        "peer": peer,
        "figures": measured,
        "errors": errors,
        "seconds": gone_at - spawned_at,
        "processes_killed_after": killed,
        "noise_before": noise,
    }


def wait_for_exit(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait for the end without polling, which would add up to 50 ms to a figure.

    Returns:
        Whether it ended by itself in time; if not it is killed.
    """
    descriptor = os.pidfd_open(process.pid)
    try:
        in_time = bool(select.select([descriptor], [], [], timeout_s)[0])
    finally:
        os.close(descriptor)
    if not in_time:
        process.kill()
    process.wait()
    return in_time


def read_figures(
    output: TextIO, gone_at: float
) -> tuple[dict[str, float], dict[str, str]]:
    """The figures and failures among whatever a case and its workers printed.

    Args:
        output: what was printed, one record a line between other lines.
        gone_at: when the last process was gone, on the monotonic clock.
    """
    measured: dict[str, float] = {}
    errors: dict[str, str] = {}
    output.seek(0)
    for line in output:
        if not line.startswith('{"figure": '):
            continue
        record = json.loads(line)
        if "error" in record:
            errors[record["figure"]] = record["error"]
        elif "until_gone_since" in record:
            measured[record["figure"]] = gone_at - record["until_gone_since"]
        else:
            measured[record["figure"]] = record["value"]
    return measured, errors


def _explain_missing(
    figures: list[str],
    measured: dict[str, float],
    errors: dict[str, str],
    status: int,
    in_time: bool,
    log: TextIO,
) -> None:
    """Give every figure that did not come a reason, and drop those not asked for."""
    for key in set(measured) - set(figures):
        del measured[key]
    if status == 0 and in_time:
        return
    log.seek(0)
    last_words = [line for line in log.read().splitlines() if line.strip()][-1:]
    what = f"exit status {status}" if in_time else "took too long"
    for key in figures:
        if key not in measured:
            errors.setdefault(key, f"{what}: {' '.join(last_words)}"[:500])


def show(result: Result, folder: Path) -> bool:
    """Print and write the tables; returns whether every target was reached."""
    settings = result["settings"]
    rows = report.table(result["runs"], settings["repeats"])
    verdicts = report.relevant_verdicts(result["runs"])
    target_rows = report.target_table(verdicts)
    text = "\n".join(
        [
            report.as_text(rows),
            "",
            "vs ...: how many times better shoal is; * fewer repeats than the others",
            *(["QUICK RUN: a smoke test, not a measurement"] * settings["quick"]),
            *report.failure_lines(result["runs"]),
            *(
                f"{PEER_TITLES[peer]} was skipped: {reason}"
                for peer, reason in result["skipped"].items()
            ),
            "",
            report.as_text(target_rows, left_columns=4),
        ]
    )
    sys.stdout.write(f"\n{text}\n")
    sys.stdout.flush()
    (folder / "table.txt").write_text(f"{text}\n\n{report.floors_text()}\n")
    (folder / "table.md").write_text(
        f"{report.as_markdown(rows)}\n\n{report.as_markdown(target_rows, 4)}\n"
    )
    return all(verdict.passed for verdict in verdicts)


def draw(options: argparse.Namespace, source: Path) -> None:
    """Draw the chart, in the environment that has what it takes."""
    try:
        found = environments.find(environments.REPORT, options.venvs, options.python)
    except PeerUnavailable as reason:
        say(f"no chart: {reason}")
        return
    subprocess.run(
        [str(found.python), "-m", "benchmarks.chart", str(source), str(options.out)],
        cwd=host.ROOT,
        env=found.environment(),
        check=True,
    )


def write(result: Result, path: Path) -> None:
    """Write the result file, with the summary of what there is so far."""
    result["summary"] = report.summarise(result["runs"])
    path.write_text(json.dumps(result, indent=1) + "\n")


def measure_all(options: argparse.Namespace, path: Path) -> Result:
    """All rounds; what was measured before a Ctrl-C is kept."""
    result: Result = {
        "schema": _SCHEMA,
        "host": host.facts(),
        "settings": {
            "repeats": options.repeats,
            "quick": options.quick,
            "cpus": options.cpus,
        },
        "peers": {},
        "skipped": {},
        "runs": [],
    }
    processes.become_subreaper()
    interpreters = find_interpreters(options, result)
    try:
        for round_number in range(options.repeats):
            measure_round(options, interpreters, round_number, result)
            write(result, path)
    except KeyboardInterrupt:
        say("interrupted; what has been measured so far:")
        processes.clear_family(0.0)
    write(result, path)
    return result


def say(text: str) -> None:
    """Progress, kept apart from the tables on stdout."""
    sys.stderr.write(f"{text}\n")


def main() -> int:
    """Measure or show; returns the exit status."""
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.json or options.out / "results.json"
    if options.show:
        path = options.show
        result = json.loads(path.read_text())
    else:
        result = measure_all(options, path)
    reached_all = show(result, options.out)
    if options.against:
        earlier = report.summarise(json.loads(options.against.read_text())["runs"])
        rows = report.comparison(earlier, report.summarise(result["runs"]))
        sys.stdout.write(f"\n{report.as_text(rows, left_columns=3)}\n")
    if options.readme:
        readme_table.replace(options.readme, readme_table.section(result))
    draw(options, path)
    say(f"written: {path}, and the tables in {options.out}")
    return 1 if options.check and not reached_all else 0


if __name__ == "__main__":
    sys.exit(main())
