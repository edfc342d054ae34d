"""The arithmetic of the benchmarks: medians, ratios, tables, verdicts.

No measurement is made here; runs are made up.
"""

import math

import pytest

from benchmarks import catalogue, readme_table, report, targets
from benchmarks.catalogue import DASK, FLOOR, MP_POOL, RAY, SHOAL
from benchmarks.run import parse, read_figures, wanted_figures
from benchmarks.targets import Target, Verdict

RATE = catalogue.FIGURES["task_sync"]
TIME = catalogue.FIGURES["first_result"]


def made_up_run(peer, repeat=0, errors=None, **figures):
    return {
        "program": "tasks",
        "peer": peer,
        "repeat": repeat,
        "figures": figures,
        "errors": errors or {},
    }


def row_of(rows, title):
    (row,) = [row for row in rows if row[0] == title]
    return dict(zip(rows[0], row, strict=True))


# ---------------------------------------------------------------------- catalogue


def test_every_figure_has_one_definition():
    for program in (*catalogue.PROGRAMS, catalogue.FLOORS):
        for figure in program.figures:
            assert catalogue.FIGURES[figure.key] is figure


def test_every_program_is_a_module_there_is():
    folder = report.__file__.rpartition("/")[0]
    for program in (*catalogue.PROGRAMS, catalogue.FLOORS):
        with open(f"{folder}/cases/{program.module}.py") as source:
            text = source.read()
        assert 'if __name__ == "__main__":' in text


def test_every_program_names_the_figures_it_is_said_to_produce():
    folder = report.__file__.rpartition("/")[0]
    for program in (*catalogue.PROGRAMS, catalogue.FLOORS):
        with open(f"{folder}/cases/{program.module}.py") as source:
            text = source.read()
        for figure in program.figures:
            assert f'"{figure.key}"' in text, (program.module, figure.key)


def test_targets_are_about_figures_and_peers_there_are():
    for target in targets.TARGETS:
        assert target.figure in catalogue.FIGURES
        assert target.of in ("", *catalogue.FIGURES)
        measured = {
            peer
            for program in (*catalogue.PROGRAMS, catalogue.FLOORS)
            if any(figure.key == target.figure for figure in program.figures)
            for peer in program.peers
        }
        assert {SHOAL, target.peer or SHOAL} <= measured


def test_slow_programs_run_for_peers_only_when_asked_for():
    def peers_of(module, *, slow):
        return [
            peer
            for program, peer in catalogue.programs((SHOAL, RAY, MP_POOL), slow=slow)
            if program.module == module
        ]

    assert peers_of("pending", slow=False) == [SHOAL]
    assert peers_of("pending", slow=True) == [SHOAL, RAY, MP_POOL]


# --------------------------------------------------------------------- arithmetic


def test_summary_has_the_median_the_extremes_and_every_value():
    runs = [made_up_run(SHOAL, i, task_sync=v) for i, v in enumerate((5.0, 1.0, 3.0))]
    assert report.summarise(runs)["task_sync"][SHOAL] == {
        "median": 3.0,
        "min": 1.0,
        "max": 5.0,
        "values": [5.0, 1.0, 3.0],
    }


def test_more_is_better_for_rates_and_less_for_times():
    assert report.times_better(RATE, 20.0, 5.0) == 4.0
    assert report.times_better(TIME, 20.0, 5.0) == 0.25


def test_a_ratio_to_nothing_is_infinite():
    assert report.times_better(RATE, 3.0, 0.0) == math.inf
    assert report.times_better(TIME, 0.0, 3.0) == math.inf


def test_the_best_peer_is_the_fastest_or_the_smallest():
    values = {"futures": 4.0, "loky": 2.0}
    pools = ("futures", "mp_pool", "loky")
    assert report.best_of(RATE, values, pools) == 4.0
    assert report.best_of(TIME, values, pools) == 2.0
    assert report.best_of(TIME, {}, pools) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1_234_567.0, "1,234,567"),
        (123.4, "123"),
        (12.34, "12.3"),
        (1.234, "1.23"),
        (0.01234, "0.0123"),
        (0.00000001234, "1.23e-08"),
    ],
)
def test_numbers_have_three_significant_digits(value, text):
    assert report.format_number(value) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(1234.5, "1,234x"), (12.6, "13x"), (2.34, "2.3x"), (0.0567, "0.057x"), (None, "")],
)
def test_ratios_are_short(ratio, text):
    assert report.format_ratio(ratio) == text


# ------------------------------------------------------------------------- tables


def test_table_compares_shoal_with_each_kind_of_peer():
    runs = [
        made_up_run(SHOAL, task_sync=8000.0, first_result=0.2),
        made_up_run(RAY, task_sync=500.0, first_result=4.0),
        made_up_run(MP_POOL, task_sync=4000.0),
        made_up_run("loky", task_sync=2000.0),
        made_up_run(FLOOR, task_sync=32000.0),
    ]
    rows = report.table(runs, repeats=1)
    task = row_of(rows, RATE.title)
    assert task["shoal"] == "8,000"
    assert (task["vs Ray"], task["vs pools"], task["of floor"]) == (
        "16x",
        "2.0x",
        "0.25x",
    )
    assert (task["Dask"], task["vs Dask"]) == ("", "")
    assert row_of(rows, TIME.title)["vs Ray"] == "20x"


def test_table_tells_spread_failures_and_fewer_repeats():
    runs = [
        made_up_run(SHOAL, 0, task_sync=90.0),
        made_up_run(SHOAL, 1, task_sync=110.0),
        made_up_run(RAY, 0, task_sync=50.0),
        made_up_run(DASK, 0, errors={"task_sync": "OSError: broken"}),
    ]
    task = row_of(report.table(runs, repeats=2), RATE.title)
    assert task["spread"] == "20 %"
    assert task["Ray"] == "50.0*"
    assert task["Dask"] == "failed"
    assert report.failure_lines(runs) == ["Dask failed in task_sync: OSError: broken"]


def test_a_failure_that_a_later_round_makes_good_is_not_told():
    runs = [
        made_up_run(DASK, 0, errors={"task_sync": "OSError: broken"}),
        made_up_run(DASK, 1, task_sync=50.0),
    ]
    assert report.failure_lines(runs) == []


def test_a_run_without_shoal_makes_a_table_without_ratios():
    task = row_of(report.table([made_up_run(RAY, task_sync=5.0)], 1), RATE.title)
    assert task["Ray"] == "5.00"
    assert task["vs Ray"] == ""


def test_text_is_aligned_and_markdown_has_the_same_cells():
    rows = [["case", "unit", "shoal"], ["a", "/s", "1"], ["longer", "", "1,000"]]
    lines = report.as_text(rows).splitlines()
    assert lines[2:] == ["a       /s        1", "longer        1,000"]
    assert report.as_markdown(rows).splitlines()[1:] == [
        "| :-- | :-- | --: |",
        "| a | /s | 1 |",
        "| longer |  | 1,000 |",
    ]


def test_comparison_of_two_runs_has_what_both_have():
    before = report.summarise([made_up_run(SHOAL, task_sync=100.0, first_result=1.0)])
    after = report.summarise(
        [made_up_run(SHOAL, task_sync=200.0), made_up_run(RAY, task_sync=5.0)]
    )
    assert report.comparison(before, after)[1:] == [
        [RATE.title, "/s", "shoal", "100", "200", "2.0x"]
    ]


# ------------------------------------------------------------------------ targets


@pytest.mark.parametrize(
    ("target", "reached", "passed"),
    [
        (Target("task_sync", 10, peer=RAY), 10.0, True),
        (Target("task_sync", 10, peer=RAY), 9.99, False),
        (Target("first_result", 0.08, peer=RAY, is_at_least=False), 0.08, False),
        (Target("first_result", 0.08, peer=RAY, is_at_least=False), 0.07, True),
        (
            Target("idle_processes", 5, is_at_least=False, is_inclusive=True),
            5.0,
            True,
        ),
        (
            Target("idle_processes", 5, is_at_least=False, is_inclusive=True),
            6.0,
            False,
        ),
        (Target("task_sync", 10, peer=RAY), None, None),
    ],
)
def test_verdicts(target, reached, passed):
    assert Verdict(target, reached).passed is passed


def reached_by(figure, medians, **wanted):
    (verdict,) = [
        verdict
        for verdict in targets.judge(medians)
        if verdict.target.figure == figure
        and all(getattr(verdict.target, k) == v for k, v in wanted.items())
    ]
    return verdict


def test_targets_against_a_peer_are_plain_ratios():
    medians = {
        "task_sync": {SHOAL: 6000.0, RAY: 500.0, FLOOR: 20000.0},
        "first_result": {SHOAL: 0.3, RAY: 4.0},
    }
    assert reached_by("task_sync", medians, peer=RAY).reached == 12.0
    assert reached_by("task_sync", medians, peer=FLOOR).passed is True
    assert reached_by("first_result", medians, peer=RAY).passed is True
    assert reached_by("first_result", medians, peer=DASK).passed is None


def test_targets_against_another_figure_of_shoal():
    medians = {
        "task_async_1k": {SHOAL: 100.0},
        "task_async_100k": {SHOAL: 90.0},
    }
    verdict = reached_by("task_async_100k", medians, of="task_async_1k")
    assert (verdict.reached, verdict.passed) == (0.9, False)


def test_plain_limits_need_no_peer():
    assert reached_by("get_100mb_ms", {"get_100mb_ms": {SHOAL: 0.1}}).passed is True
    assert reached_by("pending_bytes", {"pending_bytes": {SHOAL: 1501.0}}).passed is (
        False
    )


def test_target_table_has_the_figures_that_were_tried():
    runs = [
        made_up_run(SHOAL, errors={"actor_async": "OSError: broken"}, task_sync=9000.0),
        made_up_run(RAY, task_sync=500.0),
    ]
    rows = report.target_table(report.relevant_verdicts(runs))
    assert rows[1:] == [
        [RATE.title, "at least 0.25 x floor", "", "not measured"],
        [RATE.title, "at least 10 x Ray", "18.0 x", "pass"],
        ["actor calls, async", "at least 10 x Ray", "", "not measured"],
    ]


# ------------------------------------------------------------------------- runner


def test_figures_are_found_among_what_workers_print(tmp_path):
    path = tmp_path / "output"
    path.write_text(
        "(nop pid=7) noise\n"
        '\n{"figure": "task_sync", "value": 12.5}\n'
        '{"other": "json"}\n'
        '\n{"figure": "shutdown_gone", "until_gone_since": 100.0}\n'
        '\n{"figure": "shutdown", "error": "OSError: broken"}\n'
    )
    with path.open() as output:
        measured, errors = read_figures(output, gone_at=100.5)
    assert measured == {"task_sync": 12.5, "shutdown_gone": 0.5}
    assert errors == {"shutdown": "OSError: broken"}


def test_cases_can_be_named_by_figure_or_by_program():
    def wanted(program, *cases):
        return wanted_figures(program, SHOAL, 0, cases)

    assert wanted(catalogue.TASKS, "task_sync") == ["task_sync"]
    assert wanted(catalogue.TASKS, "startup") == []
    assert wanted(catalogue.FLOORS, "startup") == ["first_result", "shutdown_gone"]
    assert wanted(catalogue.IDLE) == [figure.key for figure in catalogue.IDLE.figures]


def test_figures_that_take_a_peer_minutes_are_repeated_less():
    key = ("task_async_100k", RAY)
    rounds = [
        round_number
        for round_number in range(5)
        if key[0] in wanted_figures(catalogue.TASKS, RAY, round_number, ())
    ]
    assert len(rounds) == catalogue.REPEATS_MAX[key]


def test_quick_means_one_round_unless_told_otherwise():
    assert parse([]).repeats == 5
    assert parse(["--quick"]).repeats == 1
    assert parse(["--quick", "--repeats", "3"]).repeats == 3


def test_unknown_names_are_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        parse(["--cases", "task_sink"])
    message = capsys.readouterr().err
    assert "task_sink" in message
    assert "task_sync" in message


# ------------------------------------------------------------------------- README


def made_up_result(*runs):
    return {
        "host": {
            "cpus": 2,
            "cpu": "a CPU",
            "memory_kib": 2**20,
            "kernel": "6.1",
            "python": "3.11.7",
            "commit": "0123456789abcdef",
            "uncommitted_changes": False,
            "when": "2030-01-02T03:04:05Z",
        },
        "peers": {RAY: {"ray": "2.60.0"}},
        "settings": {"repeats": 5},
        "runs": runs,
    }


def test_readme_section_has_the_cases_of_shoal_and_the_facts():
    text = readme_table.section(
        made_up_result(
            made_up_run(SHOAL, task_sync=5000.0),
            made_up_run(RAY, task_sync=500.0, actor_sync=1.0),
        )
    )
    assert f"| {RATE.title} | /s | 5,000 | 500 |  |  |  | 10x |" in text
    assert catalogue.FIGURES["actor_sync"].title not in text
    assert "Ray 2.60.0" in text
    assert "commit 0123456789" in text


def test_readme_section_replaces_what_was_between_the_marks(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{readme_table.START}\nold\n{readme_table.END}\nafter\n")
    readme_table.replace(readme, "new")
    assert readme.read_text() == (
        f"before\n{readme_table.START}\nnew\n{readme_table.END}\nafter\n"
    )


def test_readme_without_marks_is_left_alone(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("no marks\n")
    with pytest.raises(ValueError, match="bench:start"):
        readme_table.replace(readme, "new")
    assert readme.read_text() == "no marks\n"
