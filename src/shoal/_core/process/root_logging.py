"""The root logger of drivers and workers, when ``init`` was given a logging config.

Each line says which job, worker, node, actor and task it comes from, as text (fields
after the message) or as one JSON object per line.

What it does not do: touch handlers that a program installed itself; it adds one, which
writes to standard error, and takes back the one it added before.

Source of the fields and their order: what Ray 2.60 prints.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any, Final

from shoal._core.process.context import current_task, worker_state
from shoal._core.process.session import current

#: What every record of ``logging`` has; anything else on a record is the user's.
STANDARD_ATTRIBUTES: Final = frozenset(
    logging.LogRecord("", 0, "", 0, "", (), None).__dict__
) | {"asctime", "message", "taskName"}

TEXT_FORMAT: Final = "%(asctime)s\t%(levelname)s %(filename)s:%(lineno)s -- %(message)s"


def place_fields() -> dict[str, str]:
    """Where the present code runs: ids and names; empty where no session runs."""
    session = current.session
    if session is None:
        return {}
    fields = {
        "job_id": session.peer.job_id.hex(),
        "worker_id": session.peer.worker_id.hex(),
        "node_id": session.info["node_id"],
    }
    spec = worker_state.actor_spec
    task = current_task.get()
    if spec is not None:
        fields["actor_id"] = spec.actor_id.hex()
    if task is not None:
        fields["task_id"] = task.message.task_id.hex()
        fields["task_name"] = task.message.label or task.call.name
    if spec is not None and spec.name:
        fields["actor_name"] = spec.name
    return fields


class _PlaceFormatter(logging.Formatter):
    """What both encodings share: which fields follow the message."""

    def __init__(self, attributes: list[str]) -> None:
        super().__init__(TEXT_FORMAT)
        self._attributes = attributes

    def _further_fields(self, record: logging.LogRecord) -> dict[str, Any]:
        fields = {name: getattr(record, name, None) for name in self._attributes}
        for name, value in record.__dict__.items():
            if name not in STANDARD_ATTRIBUTES:
                fields[name] = value
        fields.update(place_fields())
        fields["timestamp_ns"] = time.time_ns()
        return fields


class TextFormatter(_PlaceFormatter):
    """A line as people like it, then ``name=value`` for each field."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        text = super().format(record)
        fields = self._further_fields(record)
        return " ".join([text, *(f"{name}={value}" for name, value in fields.items())])


class JsonFormatter(_PlaceFormatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a JSON object; what JSON has no form for, as its ``str``."""
        fields: dict[str, Any] = {
            "asctime": self.formatTime(record),
            "levelname": record.levelname,
            "message": record.getMessage(),
            "filename": record.filename,
            "lineno": record.lineno,
            "process": record.process,
        }
        if record.exc_info:
            fields["exc_text"] = self.formatException(record.exc_info)
        return json.dumps(fields | self._further_fields(record), default=str)


class _RootHandler(logging.StreamHandler[Any]):
    """The handler that this module added."""


def configure_root_logger(config: dict[str, Any]) -> None:
    """Make the root logger of this process write as ``config`` says.

    Args:
        config: ``encoding`` ("TEXT" or "JSON"), ``log_level`` and
            ``additional_log_standard_attrs`` of a ``LoggingConfig``.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _RootHandler):
            root.removeHandler(handler)
    added = _RootHandler()
    formatter = JsonFormatter if config["encoding"] == "JSON" else TextFormatter
    added.setFormatter(formatter(config["additional_log_standard_attrs"]))
    root.addHandler(added)
    root.setLevel(config["log_level"])
