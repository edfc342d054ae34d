"""Named actors: look-up, get-or-create, namespaces, detached lifetime.

The claims are those of Ray's pages on named actors and namespaces and of the reference
pages of ``ray.get_actor`` and ``ray.util.list_named_actors``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from conformance_impl import eventually, ray

shared = pytest.mark.usefixtures("ray_session")


@ray.remote
class Named:
    def __init__(self, value: int = 0) -> None:
        self.value = value

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    def process(self) -> int:
        return os.getpid()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    """A name that no other test uses; an actor left under it is killed."""
    chosen = request.node.name
    yield chosen
    if is_found(chosen):
        ray.kill(ray.get_actor(chosen))
        eventually(lambda: not is_found(chosen))


def is_found(name: str, namespace: str | None = None) -> bool:
    """Whether get_actor finds the name."""
    try:
        ray.get_actor(name, namespace)
    except ValueError:
        return False
    return True


@shared
def test_get_actor_finds_by_name(name: str) -> None:
    """get_actor gives a handle of the same actor, in the driver and in tasks."""
    created = Named.options(name=name).remote(1)
    found = ray.get_actor(name)
    assert found == created
    assert ray.get(found.add.remote()) == 2

    @ray.remote
    def use(actor_name: str) -> int:
        return ray.get(ray.get_actor(actor_name).add.remote())

    assert ray.get(use.remote(name)) == 3


@shared
def test_unknown_and_empty_names() -> None:
    """A name that nobody has, and an empty one, are ValueErrors."""
    with pytest.raises(ValueError, match="no_such_actor"):
        ray.get_actor("no_such_actor")
    with pytest.raises(ValueError, match="empty"):
        ray.get_actor("")


@shared
def test_name_must_be_a_string() -> None:
    """A name that is no string is a TypeError."""
    with pytest.raises(TypeError):
        Named.options(name=3).remote()


@shared
def test_duplicate_name(name: str) -> None:
    """A second actor of a name raises ActorAlreadyExistsError, a ValueError."""
    first = Named.options(name=name).remote()
    ray.get(first.add.remote())
    with pytest.raises(ray.exceptions.ActorAlreadyExistsError) as caught:
        Named.options(name=name).remote()
    assert isinstance(caught.value, ValueError)
    assert ray.get(first.add.remote()) == 2


@shared
def test_get_if_exists(name: str) -> None:
    """get_if_exists creates once; later the existing one, new arguments ignored."""
    options = {"name": name, "get_if_exists": True}
    first = Named.options(**options).remote(10)
    second = Named.options(**options).remote(99)
    assert first == second
    assert ray.get(second.add.remote()) == 11


@shared
def test_get_if_exists_from_many_tasks(name: str) -> None:
    """Tasks that race to create an actor all get the same one."""
    keep = Named.options(name="keep_" + name).remote()

    @ray.remote(num_cpus=0.5)
    def join(actor_name: str) -> int:
        options = {"name": actor_name, "get_if_exists": True, "lifetime": "detached"}
        return ray.get(Named.options(**options).remote().process.remote())

    assert len(set(ray.get([join.remote(name) for _ in range(6)]))) == 1
    ray.kill(keep)


@shared
def test_name_is_free_after_kill(name: str) -> None:
    """The name of a killed actor can be given again."""
    first = Named.options(name=name).remote()
    ray.get(first.add.remote())
    ray.kill(first)
    eventually(lambda: not is_found(name))
    second = Named.options(name=name).remote(5)
    assert ray.get(second.add.remote()) == 6


@shared
def test_non_detached_actor_ends_with_its_last_handle(name: str) -> None:
    """A name doesn't keep an actor alive that isn't detached."""
    actor = Named.options(name=name).remote()
    ray.get(actor.add.remote())
    del actor
    eventually(lambda: not is_found(name), why="the actor ended with its handle")


@shared
def test_detached_actor_outlives_its_handles(name: str) -> None:
    """A detached actor stays until it is killed, handles or not."""
    actor = Named.options(name=name, lifetime="detached").remote()
    process = ray.get(actor.process.remote())
    del actor
    found = ray.get_actor(name)
    assert ray.get([found.add.remote(), found.process.remote()]) == [1, process]
    ray.kill(found)
    eventually(lambda: not is_found(name))


@shared
def test_detached_actor_outlives_the_actor_that_created_it(name: str) -> None:
    """A detached actor doesn't share the fate of its creator."""

    @ray.remote
    class Creator:
        def create(self, actor_name: str) -> int:
            child = Named.options(name=actor_name, lifetime="detached").remote()
            return ray.get(child.process.remote())

    creator = Creator.remote()
    process = ray.get(creator.create.remote(name))
    ray.kill(creator)
    assert ray.get(ray.get_actor(name).process.remote()) == process


@shared
def test_namespace_separates_names(name: str) -> None:
    """The same name may be used once in each namespace and is looked up by both."""
    here = Named.options(name=name).remote(1)
    there = Named.options(name=name, namespace="elsewhere").remote(100)
    ray.get([here.add.remote(), there.add.remote()])
    assert ray.get(ray.get_actor(name).add.remote()) == 3
    assert ray.get(ray.get_actor(name, namespace="elsewhere").add.remote()) == 102
    assert not is_found(name, "nowhere")


@shared
def test_list_named_actors(name: str) -> None:
    """list_named_actors gives names of this namespace, or names with namespaces."""
    here = Named.options(name=name).remote()
    there = Named.options(name=name + "_far", namespace="elsewhere").remote()
    ray.get([here.add.remote(), there.add.remote()])
    assert name in ray.util.list_named_actors()
    assert name + "_far" not in ray.util.list_named_actors()
    everywhere = ray.util.list_named_actors(all_namespaces=True)
    namespace = ray.get_runtime_context().namespace
    assert {"name": name, "namespace": namespace} in everywhere
    assert {"name": name + "_far", "namespace": "elsewhere"} in everywhere


@shared
def test_actor_name_in_runtime_context(name: str) -> None:
    """get_actor_name inside an actor is its name."""

    @ray.remote
    class Knowing:
        def name(self) -> str:
            return ray.get_runtime_context().get_actor_name()

    knowing = Knowing.options(name=name).remote()
    assert ray.get(knowing.name.remote()) == name


def test_namespace_of_init(fresh_ray: Any) -> None:
    """init(namespace=...) is the namespace of the job and of its named actors."""
    fresh_ray.init(
        num_cpus=1, namespace="chosen", include_dashboard=False, log_to_driver=False
    )
    actor = Named.options(name="in_chosen").remote()
    assert fresh_ray.get_runtime_context().namespace == "chosen"
    assert fresh_ray.get_actor("in_chosen", namespace="chosen") == actor


SECOND_DRIVER = """
import os

@ray.remote
class Named:
    def add(self):
        return 7

ray.init(address=os.environ["SESSION_ADDRESS"], namespace="shared_space")
detached = Named.options(name="lasting", lifetime="detached").remote()
passing = Named.options(name="passing").remote()
print("added", ray.get(detached.add.remote()) + ray.get(passing.add.remote()))
"""


@shared
def test_detached_actor_outlives_its_driver(run_driver: Any) -> None:
    """After its driver ended a detached actor is found in its namespace, others not."""
    address = ray.get_runtime_context().gcs_address
    ended = run_driver(SECOND_DRIVER, SESSION_ADDRESS=address)
    assert "added 14" in ended.stdout, ended.stderr
    eventually(lambda: not is_found("passing", "shared_space"))
    lasting = ray.get_actor("lasting", namespace="shared_space")
    assert ray.get(lasting.add.remote()) == 7
    assert not is_found("lasting")
    ray.kill(lasting)
    eventually(lambda: not is_found("lasting", "shared_space"))
