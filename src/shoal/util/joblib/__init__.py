"""Run joblib, and with it scikit-learn, on a cluster.

After `register_ray()` the code inside `joblib.parallel_backend("ray")` spreads
its jobs over all processes of the session. joblib is an optional extra and is
imported only here.

    from shoal.util.joblib import register_ray
    register_ray()
    with joblib.parallel_backend("ray"):
        GridSearchCV(estimator, parameters, n_jobs=-1).fit(X, y)
"""

from __future__ import annotations

__all__ = ["register_ray", "register_shoal"]


def register_ray() -> None:
    """Make the backend known to joblib under the name "ray".

    Raises:
        ImportError: joblib is not installed.
    """
    _register("ray")


def register_shoal() -> None:
    """Make the backend known to joblib under the name "shoal".

    Raises:
        ImportError: joblib is not installed.
    """
    _register("shoal")


def _register(name: str) -> None:
    try:
        from joblib import register_parallel_backend  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "the joblib backend needs joblib, which is not installed: "
            "pip install 'shoal[joblib]'"
        ) from error
    from shoal.util.joblib.ray_backend import RayBackend  # noqa: PLC0415

    register_parallel_backend(name, RayBackend)
