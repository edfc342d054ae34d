"""``shoal.actor``: the classes of actors, and how an actor ends itself.

The names are those of Ray's module ``ray.actor``; everything but ``exit_actor`` is
defined elsewhere.
"""

from __future__ import annotations

from typing import NoReturn

from shoal._api.actor_class import ActorClass, ActorClassInheritanceException
from shoal._api.actor_handle import ActorHandle, ActorMethod, method
from shoal._core.process.context import worker_state
from shoal._core.process.execution import ActorExit

__all__ = [
    "ActorClass",
    "ActorClassInheritanceException",
    "ActorHandle",
    "ActorMethod",
    "exit_actor",
    "method",
]


def exit_actor() -> NoReturn:
    """End the actor whose method is running; it is not restarted.

    The call that is running, and those still waiting, raise ActorDiedError in whoever
    gets them.  Functions registered with ``atexit`` in the actor run.

    Raises:
        TypeError: the caller is not inside an actor.
    """
    if worker_state.actor_spec is None:
        raise TypeError(
            "exit_actor() ends the actor that calls it; this is not the method of an "
            "actor. To end an actor from outside, use kill(handle)."
        )
    raise ActorExit
