"""From single measurements to the table: medians, ratios, columns, text.

Pure functions over plain data, so that a result file can be shown again at any time
and so that tests need no measurement.

A *run* is one process of one program for one peer:
`{"program", "peer", "repeat", "figures": {key: value}, "errors": {key: text}, ...}`.
Every ratio of the table is "how many times better": above 1 shoal is ahead, whether
the figure is a rate or a time.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks import catalogue, targets
from benchmarks.catalogue import DASK, FLOOR, PEER_TITLES, POOLS, RAY, SHOAL, Figure

Run = Mapping[str, Any]
Summary = dict[str, dict[str, dict[str, Any]]]
"""figure key -> peer -> {"median", "min", "max", "values"}."""

_COLUMNS = (SHOAL, RAY, DASK, *POOLS, FLOOR)


def summarise(runs: Iterable[Run]) -> Summary:
    """Median, extremes and all values of each figure and peer, in the table's order."""
    values: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        for key, value in run["figures"].items():
            values.setdefault(key, {}).setdefault(run["peer"], []).append(value)
    return {
        key: {
            peer: {
                "median": statistics.median(several),
                "min": min(several),
                "max": max(several),
                "values": several,
            }
            for peer, several in values[key].items()
        }
        for key in catalogue.FIGURES
        if key in values
    }


def medians(summary: Summary) -> dict[str, dict[str, float]]:
    """figure key -> peer -> median."""
    return {
        key: {peer: cell["median"] for peer, cell in peers.items()}
        for key, peers in summary.items()
    }


def failures(runs: Iterable[Run]) -> dict[tuple[str, str], str]:
    """(figure key, peer) -> the last reason why it could not be measured."""
    return {
        (key, run["peer"]): text
        for run in runs
        for key, text in run.get("errors", {}).items()
    }


def grouped(errors: Mapping[str, str]) -> dict[str, list[str]]:
    """reason -> the figures that failed for it."""
    by_reason: dict[str, list[str]] = {}
    for key, reason in errors.items():
        by_reason.setdefault(reason, []).append(key)
    return by_reason


def failure_lines(runs: Sequence[Run]) -> list[str]:
    """One line for each peer and reason of figures that never came."""
    measured = {(key, run["peer"]) for run in runs for key in run["figures"]}
    by_peer: dict[str, dict[str, str]] = {}
    for (key, peer), reason in failures(runs).items():
        if (key, peer) not in measured:
            by_peer.setdefault(peer, {})[key] = reason
    return [
        f"{PEER_TITLES[peer]} failed in {', '.join(keys)}: {reason}"
        for peer, errors in by_peer.items()
        for reason, keys in grouped(errors).items()
    ]


def times_better(figure: Figure, ours: float, theirs: float) -> float:
    """How many times better `ours` is: above 1 is ahead, below 1 is behind."""
    better, base = (ours, theirs) if figure.is_higher_better else (theirs, ours)
    if base == 0:
        return math.inf if better else 1.0
    return better / base


def best_of(
    figure: Figure, values: Mapping[str, float], peers: Iterable[str]
) -> float | None:
    """The best value among some peers, None when none of them has one."""
    there = [values[peer] for peer in peers if peer in values]
    if not there:
        return None
    return max(there) if figure.is_higher_better else min(there)


def format_number(value: float) -> str:
    """Three significant digits, with separators, never an exponent for large ones."""
    if math.isinf(value):
        return "inf"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}" if digits < 7 else f"{value:.2e}"


def format_ratio(ratio: float | None) -> str:
    """A ratio with two significant digits below 10, as a plain number above."""
    if ratio is None:
        return ""
    if ratio >= 10:
        return f"{ratio:,.0f}x"
    return f"{ratio:.1f}x" if ratio >= 1 else f"{ratio:.2g}x"


def table(runs: Sequence[Run], repeats: int) -> list[list[str]]:
    """The rows of the one table, its header first."""
    summary = summarise(runs)
    failed = failures(runs)
    keys = [
        key
        for key in catalogue.FIGURES
        if key in summary or any(key == failed_key for failed_key, _ in failed)
    ]
    header = ["case", "unit", *(PEER_TITLES[peer] for peer in _COLUMNS)]
    header += ["spread", "vs Ray", "vs Dask", "vs pools", "of floor"]
    return [header, *(_row(key, summary.get(key, {}), failed, repeats) for key in keys)]


def _row(
    key: str,
    cells: Mapping[str, Mapping[str, Any]],
    failed: Mapping[tuple[str, str], str],
    repeats: int,
) -> list[str]:
    """One figure: values, spread of shoal's repeats, ratios."""
    figure = catalogue.FIGURES[key]
    values = {peer: cell["median"] for peer, cell in cells.items()}
    row = [figure.title, figure.unit]
    for peer in _COLUMNS:
        if peer in cells:
            few = "*" if len(cells[peer]["values"]) < repeats else ""
            row.append(format_number(values[peer]) + few)
        else:
            row.append("failed" if (key, peer) in failed else "")
    row.append(_spread(cells.get(SHOAL)))
    for peers in ((RAY,), (DASK,), POOLS, (FLOOR,)):
        theirs = best_of(figure, values, peers)
        ratio = None
        if SHOAL in values and theirs is not None:
            ratio = times_better(figure, values[SHOAL], theirs)
        row.append(format_ratio(ratio))
    return row


def _spread(cell: Mapping[str, Any] | None) -> str:
    """Distance of the extremes in per cent of the median."""
    if cell is None or len(cell["values"]) < 2 or not cell["median"]:
        return ""
    return f"{100 * (cell['max'] - cell['min']) / cell['median']:.0f} %"


def relevant_verdicts(runs: Sequence[Run]) -> list[targets.Verdict]:
    """The verdicts on every figure that this run was about, measured or failed."""
    summary = summarise(runs)
    tried = {*summary, *(key for key, _ in failures(runs))}
    return [
        verdict
        for verdict in targets.judge(medians(summary))
        if verdict.target.figure in tried
    ]


def target_table(verdicts: Sequence[targets.Verdict]) -> list[list[str]]:
    """Each target: what was promised, what was reached, and the judgement."""
    words = {True: "pass", False: "FAIL", None: "not measured"}
    rows = [["case", "required", "reached", "verdict"]]
    for verdict in verdicts:
        target = verdict.target
        multiple = " x" if target.peer or target.of else ""
        reached = verdict.reached
        rows.append(
            [
                catalogue.FIGURES[target.figure].title,
                targets.describe_bound(target),
                "" if reached is None else format_number(reached) + multiple,
                words[verdict.passed],
            ]
        )
    return rows


def comparison(before: Summary, after: Summary) -> list[list[str]]:
    """Every figure that both runs have, and how many times better the later one is."""
    rows = [["case", "unit", "peer", "before", "after", "ratio"]]
    for key, cells in after.items():
        figure = catalogue.FIGURES[key]
        for peer, cell in cells.items():
            earlier = before.get(key, {}).get(peer)
            if earlier is None:
                continue
            old, new = earlier["median"], cell["median"]
            rows.append(
                [
                    figure.title,
                    figure.unit,
                    PEER_TITLES[peer],
                    format_number(old),
                    format_number(new),
                    format_ratio(times_better(figure, new, old)),
                ]
            )
    return rows


def as_text(rows: Sequence[Sequence[str]], left_columns: int = 2) -> str:
    """Aligned columns; all but the first few to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i < left_columns else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def as_markdown(rows: Sequence[Sequence[str]], left_columns: int = 2) -> str:
    """The same table for a README."""
    marks = [":--" if i < left_columns else "--:" for i in range(len(rows[0]))]
    lines = [rows[0], marks, *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def floors_text() -> str:
    """What the floor column means, row by row."""
    lines = [
        f"  {figure.title}: {figure.floor}"
        for figure in catalogue.FIGURES.values()
        if figure.floor
    ]
    return "\n".join(["Floors:", *lines])
