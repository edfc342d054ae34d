"""The joblib backend: joblib's own interface, and scikit-learn on top of it."""

import multiprocessing
import os
import time

import pytest
from conformance_impl import ray, submodule

joblib = pytest.importorskip("joblib")


@pytest.fixture
def backend(ray_session):
    submodule("util.joblib").register_ray()
    with joblib.parallel_backend("ray"):
        yield


def test_effective_n_jobs(backend):
    """-1 is every CPU of the cluster, one by one down; 0 is an error."""
    cpus = int(ray.cluster_resources()["CPU"])
    assert joblib.effective_n_jobs(-1) == cpus
    assert joblib.effective_n_jobs(2) == 2
    assert joblib.effective_n_jobs(1) == 1
    with pytest.raises(ValueError):
        joblib.effective_n_jobs(0)


def test_calls_run_elsewhere_in_order(backend):
    """Results come in order, from processes of the cluster."""
    results = joblib.Parallel(n_jobs=2)(
        joblib.delayed(lambda value: (value, os.getpid()))(value) for value in range(20)
    )
    assert [value for value, _ in results] == list(range(20))
    assert os.getpid() not in {pid for _, pid in results}


def test_error(backend):
    """An error arrives as its own type, and the backend can be used again."""
    with pytest.raises(ValueError, match="invalid literal"):
        joblib.Parallel(n_jobs=2)(joblib.delayed(int)("no") for _ in range(4))
    assert joblib.Parallel(n_jobs=2)(joblib.delayed(int)("1") for _ in range(2)) == [
        1,
        1,
    ]


def test_one_job_stays_here(backend):
    """n_jobs=1 runs in the calling process."""
    results = joblib.Parallel(n_jobs=1)(joblib.delayed(os.getpid)() for _ in range(2))
    assert set(results) == {os.getpid()}


def test_timeout(backend):
    """joblib's timeout works."""
    with pytest.raises(multiprocessing.TimeoutError):
        joblib.Parallel(n_jobs=2, timeout=0.2)(
            joblib.delayed(time.sleep)(20) for _ in range(2)
        )


@pytest.mark.parametrize("kind", ["list", "array"])
def test_large_arguments(backend, kind):
    """Arguments of any size arrive whole, also the same one many times."""
    np = pytest.importorskip("numpy")
    data = np.arange(200_000.0)
    argument = data if kind == "array" else list(data)
    results = joblib.Parallel(n_jobs=2)(
        joblib.delayed(lambda values, at: float(values[at]))(argument, at)
        for at in (0, 10, 199_999)
    )
    assert results == [0.0, 10.0, 199_999.0]


def test_several_calls_in_one_context(backend):
    """A Parallel used as a context keeps working over several calls."""
    with joblib.Parallel(n_jobs=2) as parallel:
        for _ in range(3):
            assert parallel(joblib.delayed(abs)(-at) for at in range(4)) == [0, 1, 2, 3]


def test_nested_parallel(backend):
    """A Parallel inside of a job works."""

    def inner(at):
        return sum(
            joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(-at) for _ in range(3))
        )

    assert joblib.Parallel(n_jobs=2)(joblib.delayed(inner)(at) for at in range(3)) == [
        0,
        3,
        6,
    ]


def test_options_of_the_actors(ray_session):
    """ray_remote_args are options of the processes."""
    submodule("util.joblib").register_ray()
    options = {"runtime_env": {"env_vars": {"JOBLIB_VAR": "1"}}}
    with joblib.parallel_backend("ray", ray_remote_args=options):
        results = joblib.Parallel(n_jobs=2)(
            joblib.delayed(os.getenv)("JOBLIB_VAR") for _ in range(2)
        )
    assert results == ["1", "1"]


def test_grid_search(backend):
    """scikit-learn's grid search finds the same parameters as without the backend."""
    datasets = pytest.importorskip("sklearn.datasets")
    from sklearn.model_selection import GridSearchCV
    from sklearn.tree import DecisionTreeClassifier

    features, labels = datasets.load_digits(return_X_y=True)

    def search():
        return GridSearchCV(
            DecisionTreeClassifier(random_state=0),
            {"max_depth": [2, 8]},
            n_jobs=-1,
            cv=3,
        ).fit(features, labels)

    found = search()
    with joblib.parallel_backend("sequential"):
        expected = search()
    assert found.best_params_ == expected.best_params_
    assert found.best_score_ == pytest.approx(expected.best_score_)


@pytest.mark.beyond_ray(reason="Ray fails when more jobs are asked for than CPUs")
def test_more_jobs_than_cpus(backend):
    """More jobs than CPUs are served by as many processes as there is room for."""
    cpus = int(ray.cluster_resources()["CPU"])
    assert joblib.effective_n_jobs(cpus + 5) == cpus
    results = joblib.Parallel(n_jobs=cpus + 5)(
        joblib.delayed(abs)(-at) for at in range(20)
    )
    assert results == list(range(20))


@pytest.mark.beyond_ray(reason="Ray's backend does not support return_as")
@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_generators(backend, return_as):
    """Results can be taken as they come."""
    results = joblib.Parallel(n_jobs=2, return_as=return_as)(
        joblib.delayed(abs)(-at) for at in range(6)
    )
    assert sorted(results) == list(range(6))


@pytest.mark.beyond_ray(reason="a name of shoal's own")
def test_own_name(ray_session):
    """The backend is also there under the name "shoal"."""
    submodule("util.joblib").register_shoal()
    with joblib.parallel_backend("shoal"):
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(-1) for _ in range(2)) == [
            1,
            1,
        ]


@pytest.mark.beyond_ray(reason="the extra is shoal's")
def test_missing_joblib(monkeypatch):
    """Without joblib the error names the extra to install."""
    import sys

    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(ImportError, match=r"shoal\[joblib\]"):
        submodule("util.joblib").register_ray()
