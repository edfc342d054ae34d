"""Functions and classes as bytes, each sent once and known by its hash afterwards.

What can't be imported by name on the other side (a function of ``__main__``, a
closure, a class made in a function) travels by value, with the globals it reads as
they are at this moment; the rest travels by name.

The key is a hash of the pickled form.  The same source exported twice may get two
keys, since what it closes over may have changed; two functions never share one.

Does not: remember what was exported to whom (the owner does), or call anything.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from shoal._core.serial.pickler import dumps_in_band
from shoal._core.serial.unserializable import explain_unserializable

KEY_BYTES = 16

#: A function larger than this is sent, with a warning.
SIZE_WARNING_BYTES = 10 << 20

#: A function larger than this is refused.
SIZE_MAX_BYTES = 100 << 20


def export(definition: Callable[..., Any]) -> tuple[bytes, bytes]:
    """Pickle a function or a class.

    Args:
        definition: the function, or the class of an actor.

    Returns:
        Its key (16 bytes, BLAKE2b of the second item) and its pickled form, which
        ``load`` turns back.

    Raises:
        TypeError: something that it closes over can't be pickled; the message says
            what and where.
        ValueError: the pickled form is larger than 100 MiB.
    """
    kind = "actor class" if isinstance(definition, type) else "function"
    name = getattr(definition, "__qualname__", None) or repr(definition)
    full_name = f"{getattr(definition, '__module__', None) or '?'}.{name}"
    try:
        pickled = dumps_in_band(definition)
    except Exception as error:
        start = getattr(definition, "__name__", kind)
        start = start if start.isidentifier() else kind
        raise TypeError(
            f"Could not serialize the {kind} {full_name}: {error}\n"
            f"{explain_unserializable(definition, start)}"
        ) from error
    if len(pickled) > SIZE_WARNING_BYTES:
        _complain_of_size(kind, full_name, len(pickled))
    return blake2b(pickled, digest_size=KEY_BYTES).digest(), pickled


def load(pickled: bytes | memoryview) -> Any:
    """Rebuild a function or class from what ``export`` made.

    Raises:
        Exception: whatever importing what it refers to by name raises, with a note.
    """
    try:
        return pickle.loads(pickled)
    except Exception as error:
        error.add_note(
            "This happened when a worker loaded a function or class that was sent to "
            "it. Modules that it uses must be importable there: install them on every "
            "node, or name them in runtime_env (working_dir, py_modules)."
        )
        raise


def _complain_of_size(kind: str, full_name: str, size_bytes: int) -> None:
    size = f"{size_bytes / (1 << 20):.0f} MiB"
    advice = (
        "It closes over large values, or reads them as globals: store them with put() "
        "and pass the ref as an argument."
    )
    if size_bytes > SIZE_MAX_BYTES:
        raise ValueError(
            f"The {kind} {full_name} has {size} when pickled; at most "
            f"{SIZE_MAX_BYTES >> 20} MiB are allowed. {advice}"
        )
    # The text is the same for each export, so a program sees it once per definition.
    warnings.warn(
        f"The {kind} {full_name} has {size} when pickled, and each worker that runs "
        f"it is sent that much. {advice}",
        stacklevel=3,
    )
