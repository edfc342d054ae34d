"""Which refs are inside a value that is being written.

A value may hold refs anywhere, also inside objects whose own ``__reduce__`` calls a
pickler of its own.  So a ref that is asked for its pickled form needs to know whether
that happens inside a value that shoal is writing (then the value's reader becomes a
borrower, and the value keeps the ref alive) or behind shoal's back (then nobody will
ever report the copy, and the object must be kept for good).

Writing happens on the thread that called ``begin_write`` and nowhere else, so the
value being written is looked up by thread.  A value may be written while another one
is (a ``__reduce__`` that calls ``put``): ``begin_write`` returns the outer one, which
``end_write`` restores.

Reading needs no such record: a ref that is rebuilt reports itself to its process
(``base/object_ref.py``).

Uses ``_thread.get_ident``, only to tell threads apart; there is no lock here, and no
entry outlives the call that made it.
"""

from __future__ import annotations

from _thread import get_ident
from typing import Any

from shoal._core.base.object_ref import ObjectRef

#: Refs met in one value, by object id, in the order they were met.
Captured = dict[bytes, ObjectRef[Any]]

_writing: dict[int, Captured] = {}


def begin_write(captured: Captured) -> Captured | None:
    """Collect the refs written on this thread in ``captured`` from now on.

    Returns:
        What was collecting before, to be given to ``end_write``.
    """
    thread = get_ident()
    outer = _writing.get(thread)
    _writing[thread] = captured
    return outer


def end_write(outer: Captured | None) -> None:
    """Stop collecting; go on with ``outer``, where there is one."""
    if outer is None:
        del _writing[get_ident()]
    else:
        _writing[get_ident()] = outer


def note_written(ref: ObjectRef[Any]) -> bool:
    """Record that ``ref`` is being pickled.

    Returns:
        Whether that happens inside a value being written on this thread.  If not, the
        copy travels outside of shoal and the caller must keep the object alive.
    """
    captured = _writing.get(get_ident())
    if captured is None:
        return False
    captured.setdefault(ref._id, ref)
    return True
