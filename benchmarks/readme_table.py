"""The performance table of the README: narrower than the whole one, made from it.

Stands between two marks in the README, so that it is never typed by hand:
`python -m benchmarks.run --show RESULT.json --readme README.md`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import catalogue, report
from benchmarks.catalogue import DASK, FLOOR, POOLS, RAY, SHOAL

START = "<!-- bench:start -->"
END = "<!-- bench:end -->"


def section(result: Mapping[str, Any]) -> str:
    """The table and the line that says on what, when and how it was measured."""
    host = result["host"]
    rows = [["", "unit", "shoal", "Ray", "Dask", "best pool", "floor", "vs Ray"]]
    for key, values in report.medians(report.summarise(result["runs"])).items():
        if SHOAL in values:
            rows.append(_row(catalogue.FIGURES[key], values))
    versions = result["peers"]
    commit = host["commit"][:10] or "unknown"
    changed = " with uncommitted changes" if host["uncommitted_changes"] else ""
    return (
        f"{report.as_markdown(rows)}\n\n"
        f"{host['cpus']} CPUs ({host['cpu']}), {host['memory_kib'] / 2**20:.0f} GiB,"
        f" Linux {host['kernel']}, Python {host['python']};"
        f" Ray {versions.get(RAY, {}).get('ray', 'not measured')},"
        f" Dask {versions.get(DASK, {}).get('distributed', 'not measured')};"
        f" commit {commit}{changed}, {host['when'][:10]};"
        f" median of {result['settings']['repeats']}."
    )


def _row(figure: catalogue.Figure, values: Mapping[str, float]) -> list[str]:
    """One case: the medians and how many times better than Ray."""
    columns = [values.get(SHOAL), values.get(RAY), values.get(DASK)]
    columns += [report.best_of(figure, values, POOLS), values.get(FLOOR)]
    ratio = (
        report.times_better(figure, values[SHOAL], values[RAY])
        if RAY in values
        else None
    )
    return [
        figure.title,
        figure.unit,
        *("" if value is None else report.format_number(value) for value in columns),
        report.format_ratio(ratio),
    ]


def replace(readme: Path, text: str) -> None:
    """Put the text between the marks.

    Raises:
        ValueError: the file has not exactly one pair of marks.
    """
    content = readme.read_text()
    if content.count(START) != 1 or content.count(END) != 1:
        raise ValueError(f"{readme} needs one line {START!r} and one line {END!r}")
    before, _, rest = content.partition(START)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{START}\n{text}\n{END}{after}")
