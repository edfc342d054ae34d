"""What a pending object waits for, in words, for errors that tell of a wait in vain.

Read under the lock or not: a word that is out of date does no harm here.
"""

from __future__ import annotations

from collections.abc import Sequence

from shoal._core.owner.references import Entry


def explain_timeout(late: Sequence[Entry], timeout: float | None) -> str:
    """Why a get ran out of time; ``late`` are the objects that are missing."""
    first = late[0]
    return (
        f"Get timed out: {len(late)} object(s) not ready after {timeout} s. "
        f"{first.object_id.hex()}: {explain(first)}"
    )


def explain(entry: Entry) -> str:
    """What a pending object waits for."""
    record = entry.record
    if record is None:
        return f"its owner {entry.owner} has not said that it is ready."
    name = record.call.name
    if record.missing:
        return f"task {name} waits for {record.missing} of its arguments."
    if record.actor is not None:
        calls = record.actor
        if record.channel is None:
            why = f" {calls.cause}" if calls.cause else ""
            return f"actor call {name} waits; the actor is {calls.state}.{why}"
        return f"actor call {name} was sent; the actor has not answered."
    if record.channel is not None:
        return f"task {name} is on worker {record.channel.address[:8]}."
    if record.sclass.reason:
        return str(record.sclass.reason)
    ahead = len(record.sclass.queue)
    return f"task {name} is queued with {ahead} others of its kind for a worker."
