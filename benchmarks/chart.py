"""Draws a result file: every system in every case, as a multiple of Ray's figure.

One row a case, one mark a system, on a logarithmic axis on which Ray is 1 and further
right is better, for rates as for times and sizes. Run in an environment of its own,
because nothing else here needs matplotlib:
`python -m benchmarks.chart RESULT.json FOLDER`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib import ticker

from benchmarks import catalogue, report
from benchmarks.catalogue import PEER_TITLES, RAY, SHOAL

_STYLES: dict[str, dict[str, Any]] = {
    "shoal": {"marker": "D", "color": "#00798c", "s": 70, "zorder": 5},
    "ray": {"marker": "o", "color": "#d1495b", "s": 42},
    "dask": {"marker": "s", "color": "#edae49", "s": 38},
    "futures": {"marker": "^", "color": "#5b8e7d", "s": 38},
    "mp_pool": {"marker": "v", "color": "#6a4c93", "s": 38},
    "loky": {"marker": "P", "color": "#8d6e63", "s": 38},
    "floor": {"marker": "|", "color": "#222222", "s": 160},
}


def points(medians: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """figure key -> peer -> times better than Ray, where Ray and another have it."""
    found = {}
    for key, values in medians.items():
        if not values.get(RAY) or len(values) < 2:
            continue
        figure = catalogue.FIGURES[key]
        found[key] = {
            peer: report.times_better(figure, value, values[RAY])
            for peer, value in values.items()
            if value
        }
    return found


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """Write chart.png and chart.svg; returns the paths, none without Ray's figures."""
    rows = points(report.medians(report.summarise(result["runs"])))
    if not rows:
        return []
    figure, axes = plt.subplots(figsize=(11, 1.6 + 0.34 * len(rows)))
    keys = list(rows)
    for peer, style in _STYLES.items():
        where = [
            (rows[key][peer], -i) for i, key in enumerate(keys) if peer in rows[key]
        ]
        if where:
            xs, ys = zip(*where, strict=True)
            axes.scatter(xs, ys, label=PEER_TITLES[peer], **style)
    _dress(axes, keys, result)
    figure.tight_layout()
    paths = [folder / "chart.png", folder / "chart.svg"]
    for path in paths:
        figure.savefig(path, dpi=150)
    plt.close(figure)
    return paths


def _dress(axes: Any, keys: list[str], result: dict[str, Any]) -> None:
    """Axes, labels, grid, title."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:,g}"))
    axes.axvline(1, color="#d1495b", linewidth=1, alpha=0.6)
    axes.set_yticks(
        [-i for i in range(len(keys))],
        [catalogue.FIGURES[key].title for key in keys],
    )
    axes.grid(axis="x", which="major", alpha=0.35)
    axes.grid(axis="y", alpha=0.15)
    axes.set_axisbelow(True)
    axes.set_xlabel("times better than Ray (logarithmic; further right is better)")
    host = result["host"]
    names = "shoal and its peers" if SHOAL in result["peers"] else "the peers"
    axes.set_title(
        f"{names}: {host['cpus']} CPUs, {host['cpu']},"
        f" median of {result['settings']['repeats']}",
        fontsize=10,
    )
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.09), ncols=7, frameon=False)


def main() -> None:
    """Draw the file named on the command line and print what was written."""
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    paths = draw(json.loads(source.read_text()), folder)
    lines = list(map(str, paths)) or ["no chart: it needs figures of Ray"]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
