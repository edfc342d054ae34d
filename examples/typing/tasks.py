"""What a type checker knows of tasks and objects.

`assert_type` does nothing when the program runs; the type checker compares the type it
found with the one written there. The program also runs: `python tasks.py`.
"""

from typing import assert_type

import shoal


@shoal.remote
def double(number: int) -> int:
    return 2 * number


@shoal.remote(num_cpus=0.5, max_retries=0)
def describe(number: int, *, unit: str = "m") -> str:
    return f"{number} {unit}"


def main() -> None:
    # A call returns a ref that knows the type of the value to come.
    ref = double.remote(1)
    assert_type(ref, shoal.ObjectRef[int])
    doubled: int = shoal.get(ref)

    # A ref may stand for the value that the function asks for.
    assert_type(double.remote(ref), shoal.ObjectRef[int])

    # Options, in the decorator or for one call, keep the types.
    assert_type(double.options(num_cpus=2).remote(2), shoal.ObjectRef[int])
    text: str = shoal.get(describe.remote(doubled, unit="km"))

    # Several refs of one type give a list of it; a timeout changes nothing.
    refs = [double.remote(number) for number in range(3)]
    assert_type(shoal.get(refs, timeout=30), list[int])

    # What is ready and what is not are refs of the same type.
    ready, pending = shoal.wait(refs, num_returns=2)
    assert_type(ready, list[shoal.ObjectRef[int]])
    assert_type(pending, list[shoal.ObjectRef[int]])

    # A value that is put comes back as what it was.
    numbers = shoal.put({"one": 1})
    assert_type(numbers, shoal.ObjectRef[dict[str, int]])
    assert_type(shoal.get(numbers), dict[str, int])

    print(text, shoal.get(ready), shoal.get(numbers))


if __name__ == "__main__":
    main()
