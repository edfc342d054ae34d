"""What a type checker knows of refs that are awaited.

The program also runs: `python awaiting.py`.
"""

import asyncio
from typing import assert_type

import shoal


@shoal.remote
def square(number: int) -> int:
    return number * number


async def sum_of_squares(count: int) -> int:
    first = await square.remote(0)
    assert_type(first, int)
    rest = await asyncio.gather(*(square.remote(number) for number in range(1, count)))
    assert_type(rest, list[int])
    return first + sum(rest)


def main() -> None:
    print(asyncio.run(sum_of_squares(5)))


if __name__ == "__main__":
    main()
