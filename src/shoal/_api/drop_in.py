"""Standing in for Ray: programs that say ``import ray`` run on shoal unchanged.

The alias holds for the driver's process.  A session that starts afterwards says so to
its workers, which make the same alias before they load any function
(``_core/process/worker.py``).
"""

from __future__ import annotations

from shoal._core.process.module_alias import alias_package, is_aliased

ALIAS, PACKAGE = "ray", "shoal"


def install_as_ray() -> None:
    """Make ``import ray``, ``ray.util``, ``ray.exceptions``, … mean this package.

    The modules are the same objects under both names, here and in every worker of
    sessions started from now on.  Call it before anything imports ``ray``, and before
    ``init``.  Whether Ray is installed makes no difference.

    Raises:
        RuntimeError: Ray itself is imported already.

    Example::

        import shoal

        shoal.install_as_ray()
        import package_written_for_ray
    """
    alias_package(ALIAS, PACKAGE)


def is_installed_as_ray() -> bool:
    """Whether ``install_as_ray`` was called in this process."""
    return is_aliased(ALIAS, PACKAGE)
