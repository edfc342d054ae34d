"""Run a program written for Ray: ``python -m shoal.as_ray script.py [arguments]``.

The program's ``import ray`` gives shoal, in the driver and in every worker; nothing in
it needs to change.  ``-m package.module`` runs a module in the place of a script.
"""

from __future__ import annotations

import os
import runpy
import sys

from shoal._api.drop_in import install_as_ray

USAGE = """\
usage: python -m shoal.as_ray script.py [arguments]
       python -m shoal.as_ray -m package.module [arguments]

Runs a program with `import ray` giving shoal."""


def main(arguments: list[str]) -> None:
    """Run the program that ``arguments`` name, as the main program of this process.

    Raises:
        SystemExit: no program is named, or there is no such script.
    """
    if not arguments or arguments == ["-m"]:
        sys.exit(USAGE)
    if arguments[0] in ("-h", "--help"):
        sys.stdout.write(f"{USAGE}\n")
        return
    install_as_ray()
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    script = arguments[0]
    if not os.path.exists(script):
        sys.exit(f"there is no file {script!r} to run.\n{USAGE}")
    sys.argv = arguments
    # What `python script.py` would import from; it was the current folder until now.
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
