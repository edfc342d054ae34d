"""The classes of ``exceptions`` and how they derive from each other."""

from inspect import isclass

import pytest
from conformance_impl import ray

# Parent -> children. Every class is also a RayError.
TREE = {
    "RayError": """
        RayTaskError TaskCancelledError WorkerCrashedError LocalRayletDiedError
        NodeDiedError OutOfMemoryError OutOfDiskError ObjectStoreFullError
        RuntimeEnvSetupError TaskPlacementGroupRemoved ActorPlacementGroupRemoved
        PendingCallsLimitExceeded TaskUnschedulableError ActorUnschedulableError
        AsyncioActorExit CrossLanguageError UserCodeException AuthenticationError
        RpcError UnserializableException ObjectRefStreamEndOfStreamError
        RayActorError GetTimeoutError ObjectLostError RaySystemError
        ActorAlreadyExistsError ActorHandleNotFoundError PlasmaObjectNotAvailable
        OufOfBandObjectRefSerializationException
    """,
    "RayActorError": "ActorDiedError ActorUnavailableError",
    "ObjectLostError": """
        ObjectFetchTimedOutError ObjectFreedError OwnerDiedError
        ObjectReconstructionFailedError ReferenceCountingAssertionError
    """,
    "RaySystemError": """
        RayChannelError RayCgraphCapacityExceeded
        StreamingGeneratorReplayInconsistentError
    """,
    "RayChannelError": "RayChannelTimeoutError",
}
BUILTIN_PARENTS = {
    "RayError": Exception,
    "GetTimeoutError": TimeoutError,
    "RayChannelTimeoutError": TimeoutError,
    "ActorAlreadyExistsError": ValueError,
    "ActorHandleNotFoundError": ValueError,
    "ReferenceCountingAssertionError": AssertionError,
}


@pytest.mark.parametrize("parent", TREE)
def test_exception_tree(parent):
    """Every class derives from its documented parent and from RayError."""
    for child in TREE[parent].split():
        assert issubclass(
            getattr(ray.exceptions, child), getattr(ray.exceptions, parent)
        ), child
        assert issubclass(getattr(ray.exceptions, child), ray.exceptions.RayError)


def test_builtin_parents():
    """Some are caught as a built-in exception too."""
    for name, parent in BUILTIN_PARENTS.items():
        assert issubclass(getattr(ray.exceptions, name), parent), name


def test_actor_error_is_not_a_task_error():
    """An except clause for the user's errors does not catch the system's."""
    for name in ("RayActorError", "WorkerCrashedError", "GetTimeoutError"):
        error = getattr(ray.exceptions, name)
        assert isclass(error)
        assert not issubclass(error, ray.exceptions.RayTaskError)
