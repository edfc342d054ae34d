"""A type checker sees through tasks, objects and actors: mypy, strict, as users run it.

The examples hold positive expectations (`assert_type`), which mypy itself checks. The
programs below hold the others: what mypy reveals, and mistakes that it must find, since
a library whose types are all `Any` would pass every positive check.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "typing"

DEFINITIONS = """
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import shoal

T = TypeVar("T")

@shoal.remote
def f(x: int) -> int:
    return x

class Base(Generic[T]):
    def inherited(self) -> list[T]:
        return []

    @shoal.method(num_returns=0)
    def silent(self) -> None:
        return None

@shoal.remote
class Counter(Base[bytes]):
    def __init__(self, start: int, *, by: int = 1) -> None:
        self.value = start

    def add(self, amount: int) -> int:
        return self.value + amount

    async def later(self) -> str:
        return ""

    def items(self) -> Iterator[int]:
        yield 1

    @staticmethod
    def static(x: int) -> float:
        return 1.0

    @shoal.method(num_returns=2)
    def pair(self) -> tuple[int, int]:
        return 1, 2

    @shoal.method(concurrency_group="io")
    def grouped(self) -> int:
        return 1

@shoal.remote(num_cpus=0)
@dataclass
class Point:
    x: int

    def read(self) -> int:
        return self.x

counter = Counter.remote(1, by=2)
"""


def mypy(*files: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--no-error-summary"),
            # Errors inside shoal are the business of `make types`.
            "--follow-imports=silent",
            *map(str, files),
        ],
        # Here mypy finds the project's settings, among them where shoal lies.
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def check_program(folder: Path, line: str) -> str:
    program = folder / "program.py"
    program.write_text(DEFINITIONS + line + "\n")
    return mypy(program).stdout


def test_examples_are_strictly_typed() -> None:
    examples = sorted(EXAMPLES.glob("*.py"))
    assert examples
    result = mypy(*examples)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("expression", "revealed"),
    [
        ("shoal.get(f.remote(1))", "int"),
        ("f.remote(1)", "ObjectRef[int]"),
        ("f.remote(shoal.put(1))", "ObjectRef[int]"),
        ("shoal.get([f.remote(1)])", "list[int]"),
        ("shoal.put('a')", "ObjectRef[str]"),
        ("counter", "ActorHandle[Counter]"),
        ("Counter.options(name='a').remote(1)", "ActorHandle[Counter]"),
        ("Point.remote(1).read.remote()", "ObjectRef[int]"),
        ("counter.add.remote(counter.add.remote(1))", "ObjectRef[int]"),
        ("counter.inherited.remote()", "ObjectRef[list[bytes]]"),
        ("counter.later.remote()", "ObjectRef[str]"),
        ("counter.items.remote()", "ObjectRefGenerator[int]"),
        ("counter.static.remote(1)", "ObjectRef[float]"),
        ("counter.pair.remote()", "list[ObjectRef[Any]]"),
        ("counter.silent.remote()", "None"),
        ("shoal.remote(Base[int]).remote().silent.remote()", "None"),
        ("counter.grouped.remote()", "ObjectRef[int]"),
        ("Counter(1).pair()", "tuple[int, int]"),
    ],
)
def test_revealed_type(tmp_path: Path, expression: str, revealed: str) -> None:
    output = check_program(tmp_path, f"reveal_type({expression})")
    match = re.search(r'Revealed type is "(.*)"', output)
    assert match, output
    # The modules that the names are defined in are not part of the promise.
    assert re.sub(r"[\w.]+\.(?=\w+)", "", match[1]) == revealed


@pytest.mark.parametrize(
    "mistake",
    [
        "wrong: str = shoal.get(f.remote(1))",
        "f.remote('a')",
        "f.remote()",
        "f.remote(shoal.put('a'))",
        "f(1)",
        "Counter.remote('a')",
        "Counter.remote()",
        "Point.remote('a')",
        "Counter.options(num_cpu=2)",
        "counter.add.remote('a')",
        "counter.add()",
        "counter.nothing.remote()",
        "wrong: str = shoal.get(counter.add.remote(1))",
        "shoal.method(num_return=2)",
    ],
)
def test_mistake_is_found(tmp_path: Path, mistake: str) -> None:
    output = check_program(tmp_path, mistake)
    # One and no other: an error in the rest of the program would hide that the
    # mistake passes.
    assert output.count(" error: ") == 1, output
    assert f"program.py:{DEFINITIONS.count(chr(10)) + 1}: error: " in output


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.stem)
@pytest.mark.integration
def test_example_runs(example: Path) -> None:
    result = subprocess.run(
        [sys.executable, str(example)],
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.strip()
