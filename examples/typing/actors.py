"""What a type checker knows of actors.

mypy does not follow decorators of classes (pyright does): after `@shoal.remote` it
still sees the plain class, without `.remote()`. Called as a function, `shoal.remote`
says the same to both, and the class itself stays usable without an actor, in a unit
test for example. The program also runs: `python actors.py`.
"""

from typing import assert_type

import shoal
from shoal.actor import ActorHandle


class Counter:
    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value


class Journal:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line)

    def read(self) -> list[str]:
        return self.lines


CounterActor = shoal.remote(Counter)
JournalActor = shoal.remote(num_cpus=0, max_restarts=1)(Journal)


@shoal.remote
def count_up(counter: ActorHandle[Counter], steps: int) -> int:
    """A handle passed to a task calls the same actor."""
    refs = [counter.add.remote(1) for _ in range(steps)]
    totals: list[int] = shoal.get(refs)
    return max(totals)


def main() -> None:
    # A handle knows its class, and the constructor's arguments are checked.
    counter = CounterActor.remote(10)
    assert_type(counter, ActorHandle[Counter])

    # Results of methods take the type of the variable they are put in.
    value: int = shoal.get(counter.add.remote(1))
    assert_type(shoal.get(count_up.remote(counter, 3)), int)

    journal = JournalActor.options(name="journal").remote()
    shoal.get(journal.write.remote(f"counted to {value}"))
    lines: list[str] = shoal.get(journal.read.remote())

    print(value, lines)


if __name__ == "__main__":
    main()
