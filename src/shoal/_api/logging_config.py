"""``LoggingConfig``, and what ``init`` does about logging in the driver."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from typing import Any

from shoal._api.init_arguments import InitArguments
from shoal._core.process.root_logging import (
    STANDARD_ATTRIBUTES,
    TEXT_FORMAT,
    configure_root_logger,
)

ENCODINGS = ("TEXT", "JSON")


@dataclass
class LoggingConfig:
    """How the root loggers of the driver and of every worker write.

    Each line says job, worker, node, actor and task.  Lines of workers are then shown
    in the driver without ``(name pid=123)`` in front.

    Args:
        encoding: "TEXT", or "JSON" for one object per line.
        log_level: name of a level of ``logging``, such as "INFO".
        additional_log_standard_attrs: further attributes of ``logging.LogRecord`` to
            write, such as "name".

    Raises:
        ValueError: an unknown encoding, level or attribute.

    Example::

        shoal.init(logging_config=shoal.LoggingConfig(encoding="JSON"))

    Source: Ray's ``LoggingConfig`` (API reference).
    """

    encoding: str = "TEXT"
    log_level: str = "INFO"
    additional_log_standard_attrs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise ValueError(
                f"Invalid encoding type {self.encoding!r}; it is one of "
                f"{list(ENCODINGS)}."
            )
        levels = logging.getLevelNamesMapping()
        if self.log_level not in levels:
            raise ValueError(
                f"Invalid log_level {self.log_level!r}; it is one of {list(levels)}."
            )
        for name in self.additional_log_standard_attrs:
            if name not in STANDARD_ATTRIBUTES:
                raise ValueError(
                    f"Unknown attribute of log records {name!r}; there are "
                    f"{sorted(STANDARD_ATTRIBUTES)}."
                )


def logging_facts(config: object | None) -> dict[str, Any] | None:
    """A LoggingConfig as workers are told of it; None for none.

    Raises:
        TypeError: it is something else.
    """
    if config is None:
        return None
    if not isinstance(config, LoggingConfig):
        raise TypeError(
            "init(logging_config=...) must be a LoggingConfig or None, but is "
            f"{config!r} of type {type(config).__name__}."
        )
    return asdict(config)


def set_up_driver_logging(arguments: InitArguments) -> None:
    """Do what the arguments of ``init`` say about logging in this process.

    ``configure_logging`` gives the logger "shoal" its level, and a handler if nobody
    listens yet; what the program has set up stays.
    """
    facts = logging_facts(arguments.logging_config)
    if facts is not None:
        configure_root_logger(facts)
    if not arguments.configure_logging:
        return
    logger = logging.getLogger("shoal")
    logger.setLevel(arguments.logging_level)
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(arguments.logging_format or TEXT_FORMAT))
        logger.addHandler(handler)
