"""What a type checker knows of actors.

mypy does not follow decorators of classes by itself: it needs the plugin, which a
project switches on with

    [tool.mypy]
    plugins = ["shoal.mypy_plugin"]

The program also runs: `python actors.py`.
"""

from collections.abc import Iterator
from typing import assert_type

import shoal
from shoal.actor import ActorHandle


@shoal.remote
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    async def describe(self) -> str:
        return f"at {self.value}"

    def below(self, limit: int) -> Iterator[int]:
        yield from range(self.value, limit)

    @shoal.method(num_returns=2)
    def split(self) -> tuple[int, int]:
        return self.value // 2, self.value - self.value // 2


@shoal.remote(num_cpus=0, max_restarts=1)
class Journal:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line)

    def read(self) -> list[str]:
        return self.lines


class Greeter:
    """Not an actor by itself: it stays usable as it is, in a unit test for example."""

    def greet(self, name: str) -> str:
        return f"hello {name}"


GreeterActor = shoal.remote(Greeter)


@shoal.remote
def count_up(counter: ActorHandle[Counter], steps: int) -> int:
    """A handle passed to a task calls the same actor."""
    return max(shoal.get([counter.add.remote(1) for _ in range(steps)]))


def main() -> None:
    # A handle knows its class, and the constructor's arguments are checked.
    counter = Counter.remote(10)
    assert_type(counter, ActorHandle[Counter])

    # Methods take what they declare, or refs to it, and return refs to what they
    # declare.
    one = counter.add.remote(1)
    assert_type(one, shoal.ObjectRef[int])
    assert_type(shoal.get(counter.add.remote(one)), int)
    assert_type(shoal.get(count_up.remote(counter, 3)), int)

    # A coroutine returns its result, a generator refs to its items.
    assert_type(shoal.get(counter.describe.remote()), str)
    steps = counter.below.remote(30)
    assert_type(steps, shoal.ObjectRefGenerator[int])
    assert_type(shoal.get(next(steps)), int)

    # num_returns gives so many refs.
    halves: list[int] = shoal.get(counter.split.remote())

    # Options keep the types.
    journal = Journal.options(name="journal").remote()
    assert_type(journal, ActorHandle[Journal])
    shoal.get(journal.write.remote(f"split into {halves}"))
    assert_type(shoal.get(journal.read.remote()), list[str])

    # Called as a function, `remote` needs no plugin for `GreeterActor.remote`.
    greeter = GreeterActor.remote()
    assert_type(greeter, ActorHandle[Greeter])
    text = shoal.get(greeter.greet.remote("world"))

    print(text, shoal.get(journal.read.remote()))


if __name__ == "__main__":
    main()
