"""Reading the arguments of ``init``: checked, defaults of the environment filled in.

Pure: the environment is passed in, and nothing is started or looked up. Every parameter
of Ray's ``init`` is known here, the hidden ones and the names of old releases included.
Each is taken over into :class:`InitArguments`, or refused with an error that says what
is missing, or, where it only tuned something that does not exist here, warned about.

Environment variables (``SHOAL_X`` goes before ``RAY_X``): ``ADDRESS``, ``NAMESPACE``,
``LOG_TO_DRIVER``, ``TMPDIR``, ``ENABLE_AUTO_CONNECT``.

What it does not do: find out how many CPUs or how much memory there is (None means "as
many as there are"), or check ``_system_config``, which ``base.config`` does.
"""

import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shoal._api.option_checks import check_env_vars, check_not_empty
from shoal._core.base.labels import check_user_labels
from shoal._core.base.resources import ResourceSet

OBJECT_STORE_BYTES_MIN = 75 * 1024 * 1024
"""The smallest object store: below it, single arrays would not fit."""

PARAMETERS: Mapping[str, Any] = {
    "address": None,
    "num_cpus": None,
    "num_gpus": None,
    "resources": None,
    "labels": None,
    "object_store_memory": None,
    "local_mode": False,
    "ignore_reinit_error": False,
    "include_dashboard": None,
    "dashboard_host": "127.0.0.1",
    "dashboard_port": None,
    "job_config": None,
    "configure_logging": True,
    "logging_level": "info",
    "logging_format": None,
    "logging_config": None,
    "log_to_driver": None,
    "namespace": None,
    "runtime_env": None,
    "enable_resource_isolation": False,
    "cgroup_path": None,
    "system_reserved_cpu": None,
    "system_reserved_memory": None,
    "proxy_server_url": None,
}
"""The parameters of ``init`` and their defaults."""

HIDDEN_PARAMETERS: Mapping[str, Any] = {
    "_enable_object_reconstruction": False,
    "_plasma_directory": None,
    "object_spilling_directory": None,
    "_node_ip_address": None,
    "_driver_object_store_memory": None,
    "_memory": None,
    "_redis_username": "",
    "_redis_password": "",
    "redis_password": "",
    "_temp_dir": None,
    "_metrics_export_port": None,
    "_system_config": None,
    "_tracing_startup_hook": None,
    "_node_name": None,
    "_skip_env_hook": False,
    "storage": None,
    "allow_multiple": False,
    "_credentials": None,
    "_metadata": None,
}
"""Further keywords that ``init`` accepts, and their defaults."""

_RENAMED = {
    "redis_address": "address",
    "include_webui": "include_dashboard",
    "webui_host": "dashboard_host",
    "temp_dir": "_temp_dir",
    "plasma_directory": "_plasma_directory",
    "_internal_config": "_system_config",
}

_OWN_PARAMETER = {
    "CPU": "num_cpus",
    "GPU": "num_gpus",
    "memory": "_memory",
    "object_store_memory": "object_store_memory",
}

_NOT_YET = {
    "include_dashboard": "There is no dashboard in this version",
    "enable_resource_isolation": "Resource isolation by cgroups is not there yet",
    "proxy_server_url": "There is no dashboard to put behind a proxy in this version",
    "object_spilling_directory": "Objects are not spilled to disk in this version",
    "_tracing_startup_hook": "Tracing is not there yet",
    "_plasma_directory": "The object store is anonymous memory, which has no directory",
}
"""What can't work yet, and why."""

_ONLY_WITH_ISOLATION = ("cgroup_path", "system_reserved_cpu", "system_reserved_memory")

_ONLY_FOR_NEW_CLUSTERS = (
    "num_cpus",
    "num_gpus",
    "resources",
    "labels",
    "object_store_memory",
    "_system_config",
    "_enable_object_reconstruction",
    "_node_name",
)

_TYPES: Mapping[str, tuple[type, ...]] = {
    "address": (str,),
    "num_cpus": (int, float),
    "num_gpus": (int, float),
    "resources": (dict,),
    "labels": (dict,),
    "object_store_memory": (int, float),
    "_memory": (int, float),
    "namespace": (str,),
    "runtime_env": (dict,),
    "logging_level": (int, str),
    "log_to_driver": (bool,),
    "_system_config": (dict,),
    "_temp_dir": (str,),
    "_node_name": (str,),
    "_node_ip_address": (str,),
    "_metrics_export_port": (int,),
}


@dataclass(frozen=True, kw_only=True)
class InitArguments:
    """What ``init`` was asked for, checked."""

    address: str | None
    """The session to join: its address, or "auto"; None: start a new one."""
    num_cpus: float | None
    """CPUs to share out; None: as many as there are."""
    num_gpus: float | None
    """GPUs to share out; None: as many as there are."""
    resources: dict[str, float]
    """Custom resources, name to quantity; empty: none."""
    labels: dict[str, str]
    """Labels of the node; empty: only those of the system."""
    object_store_bytes: int | None
    """Size of the object store; None: a share of the memory."""
    memory_bytes: int | None
    """The "memory" resource; None: what the object store leaves."""
    local_mode: bool
    """Whether everything runs in this process."""
    ignore_reinit_error: bool
    """Whether a second ``init`` returns the running session instead of failing."""
    configure_logging: bool
    """Whether to set up the logger "shoal"."""
    logging_level: int
    """Its level, as in ``logging``."""
    logging_format: str | None
    """Its format; None: the usual one."""
    logging_config: object | None
    """A LoggingConfig for the root loggers of driver and workers; None: leave them."""
    log_to_driver: bool
    """Whether output of workers is shown in the driver."""
    namespace: str | None
    """Where actor names are known; None: a new one for this job."""
    runtime_env: dict[str, Any]
    """Environment of all workers of the job; empty: the driver's."""
    job_config: object | None
    """A JobConfig, as given; None: none."""
    temp_dir: str | None
    """Where session directories are made; None: the system's place."""
    node_name: str | None
    """A name for people; None: its address."""
    node_ip_address: str | None
    """The address to show; None: found out."""
    metrics_export_port: int | None
    """Port for Prometheus; None: any free one."""
    system_config: dict[str, Any]
    """Settings by name; empty: defaults."""


def parse_init_arguments(
    given: Mapping[str, Any], environment: Mapping[str, str]
) -> InitArguments:
    """Check the arguments of ``init`` and fill in what the environment says.

    Args:
        given: all arguments by name, those of ``**kwargs`` among them. Parameters may
            be missing or have their default.
        environment: environment variables.

    Raises:
        AssertionError: if ``resources`` has one that has a parameter of its own.
        ConnectionError: if it is to join a cluster: there is none to be found.
        NotImplementedError: if it asks for what this version does not have.
        RuntimeError: for unknown keywords and removed features.
        TypeError: if an argument is of a wrong type.
        ValueError: if a value is not allowed.
    """
    values = {**PARAMETERS, **HIDDEN_PARAMETERS, **_modern_names(given)}
    _check_removed(values)
    _check_types(values)
    address = _checked_address(values, environment)
    _check_not_yet(values)
    resources = _checked_resources(values)
    labels = values["labels"] or {}
    check_user_labels(labels)
    namespace = values["namespace"] or _variable("NAMESPACE", environment)
    if values["namespace"] is not None:
        check_not_empty("namespace", values["namespace"])
    runtime_env = values["runtime_env"] or {}
    check_env_vars("runtime_env", runtime_env.get("env_vars"))
    log_to_driver = values["log_to_driver"]
    if log_to_driver is None:
        log_to_driver = _variable("LOG_TO_DRIVER", environment) not in ("0", "false")
    return InitArguments(
        address=address,
        num_cpus=values["num_cpus"],
        num_gpus=values["num_gpus"],
        resources=resources,
        labels=dict(labels),
        object_store_bytes=_checked_store_size(values["object_store_memory"]),
        memory_bytes=None if values["_memory"] is None else int(values["_memory"]),
        local_mode=bool(values["local_mode"]),
        ignore_reinit_error=bool(values["ignore_reinit_error"]),
        configure_logging=bool(values["configure_logging"]),
        logging_level=_checked_level(values["logging_level"]),
        logging_format=values["logging_format"],
        logging_config=values["logging_config"],
        log_to_driver=log_to_driver,
        namespace=namespace,
        runtime_env=dict(runtime_env),
        job_config=values["job_config"],
        temp_dir=values["_temp_dir"] or _variable("TMPDIR", environment),
        node_name=values["_node_name"],
        node_ip_address=values["_node_ip_address"],
        metrics_export_port=values["_metrics_export_port"],
        system_config=dict(values["_system_config"] or {}),
    )


def auto_init_allowed(environment: Mapping[str, str]) -> bool:
    """Return whether the first use of the API may call ``init`` by itself."""
    return _variable("ENABLE_AUTO_CONNECT", environment) != "0"


def _modern_names(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments under their names of today; unknown ones are refused."""
    unknown = [
        name
        for name in given
        if name not in PARAMETERS
        and name not in HIDDEN_PARAMETERS
        and name not in _RENAMED
    ]
    if unknown:
        raise RuntimeError(
            f"Unknown keyword argument(s): {', '.join(unknown)}. init() takes "
            f"{', '.join(PARAMETERS)}."
        )
    modern = {name: value for name, value in given.items() if name not in _RENAMED}
    for old, new in _RENAMED.items():
        if old not in given:
            continue
        warnings.warn(
            f"init({old}=...) is deprecated: use {new!r}.",
            DeprecationWarning,
            stacklevel=4,
        )
        value = given[old]
        if old == "_internal_config" and isinstance(value, str):
            # It used to be given as JSON text.
            value = json.loads(value)
        modern[new] = value
    return modern


def _check_removed(values: Mapping[str, Any]) -> None:
    """Refuse what is gone for good; warn of what has no meaning any more."""
    if values["storage"] is not None:
        raise RuntimeError(
            "init(storage=...) was removed together with Ray's workflows: leave it out."
        )
    only_client = [
        name for name in ("allow_multiple", "_credentials", "_metadata") if values[name]
    ]
    if only_client:
        raise RuntimeError(
            f"{', '.join(only_client)} can only be given when connecting through a "
            "client address (ray://host:port)."
        )
    for name in ("_redis_password", "redis_password"):
        if values[name]:
            _warn_no_effect(name, "Clusters are protected by a token, not a password")
    if values["_driver_object_store_memory"] is not None:
        _warn_no_effect("_driver_object_store_memory", "Drivers share the node's store")


def _warn_no_effect(name: str, reason: str) -> None:
    """Warn that an argument is accepted and does nothing."""
    warnings.warn(
        f"init({name}=...) has no effect. {reason}: leave it out.",
        DeprecationWarning,
        stacklevel=5,
    )


def _check_types(values: Mapping[str, Any]) -> None:
    """Refuse values of a wrong type; None stands for "not given" everywhere."""
    for name, types in _TYPES.items():
        value = values[name]
        if value is not None and not isinstance(value, types):
            allowed = " or ".join(kind.__name__ for kind in types)
            raise TypeError(
                f"init({name}=...) must be {allowed} or None, but is {value!r} of type "
                f"{type(value).__name__}."
            )


def _checked_address(
    values: Mapping[str, Any], environment: Mapping[str, str]
) -> str | None:
    """The local session to join; None if a new one is asked for."""
    address, origin = values["address"], "address"
    if address in (None, "auto"):
        for variable in ("SHOAL_ADDRESS", "RAY_ADDRESS"):
            if environment.get(variable):
                address, origin = environment[variable], variable
                break
    if address in (None, "local"):
        return None
    is_local = address == "auto" or address.startswith(("unix:/", "/"))
    if not is_local and not _names_a_cluster(address):
        raise ValueError(
            f"Malformed {origin} {address!r}: use 'local', 'auto', 'unix:/directory', "
            "'host:port' or 'ray://host:port'."
        )
    if "://" not in address:
        _check_nothing_settled(values)
    if is_local:
        return str(address)
    raise ConnectionError(
        f"Could not connect to {address!r} (given by {origin}): this version runs on "
        "one machine and joins no cluster. Use address='local', or set "
        "SHOAL_ADDRESS=local."
    )


def _names_a_cluster(address: str) -> bool:
    """Whether an address has the form of a cluster's on a network."""
    if "://" in address:
        return address.startswith(("ray://", "shoal://"))
    host, colon, port = address.rpartition(":")
    return bool(colon and host and port.isdigit())


def _check_nothing_settled(values: Mapping[str, Any]) -> None:
    """Which resources a cluster has is not for one of its drivers to say."""
    settled = [
        name
        for name in _ONLY_FOR_NEW_CLUSTERS
        if values[name] not in (None, {}) and values[name] is not False
    ]
    if settled:
        raise ValueError(
            f"When connecting to an existing cluster, {', '.join(settled)} must "
            "not be given."
        )


def _check_not_yet(values: Mapping[str, Any]) -> None:
    """Refuse what is known, but not there yet."""
    for name, reason in _NOT_YET.items():
        if values[name]:
            raise NotImplementedError(
                f"init({name}={values[name]!r}) is not possible. {reason}: leave it "
                "out."
            )
    for name in _ONLY_WITH_ISOLATION:
        if values[name] is not None:
            raise ValueError(
                f"init({name}=...) needs enable_resource_isolation=True, which is not "
                "there yet: leave it out."
            )


def _checked_resources(values: Mapping[str, Any]) -> dict[str, float]:
    """The custom resources, after checking all quantities."""
    resources = values["resources"] or {}
    for name, parameter in _OWN_PARAMETER.items():
        assert name not in resources, (
            f"resources must not contain {name!r}: use {parameter}=... for it."
        )
    quantities = {
        name: values[name]
        for name in ("num_cpus", "num_gpus", "_memory")
        if values[name] is not None
    }
    for name, quantity in {**resources, **quantities}.items():
        if not isinstance(name, str) or not isinstance(quantity, int | float):
            raise TypeError(
                f"resources must map str to numbers, but has {name!r}: {quantity!r}."
            )
        if quantity < 0:
            raise ValueError(
                f"Resource quantities must be nonnegative, but {name} is {quantity!r}."
            )
    # Refuses what is not finite, or finer than the smallest quantity.
    ResourceSet({**resources, **quantities})
    for name in ("num_cpus", "num_gpus"):
        if values[name] is not None and values[name] != int(values[name]):
            raise ValueError(
                f"{name} of a node must be a whole number, but is {values[name]!r}."
            )
    return dict(resources)


def _checked_store_size(size: float | None) -> int | None:
    """The size of the object store in bytes."""
    if size is None:
        return None
    if size < OBJECT_STORE_BYTES_MIN:
        raise ValueError(
            f"object_store_memory is {size!r} bytes, but must be at least "
            f"{OBJECT_STORE_BYTES_MIN} (75 MiB)."
        )
    return int(size)


def _checked_level(level: int | str | None) -> int:
    """A logging level as a number."""
    if level is None:
        return logging.INFO
    if isinstance(level, int):
        return level
    levels = logging.getLevelNamesMapping()
    if level.upper() not in levels:
        raise ValueError(
            f"logging_level must be a number or one of {list(levels)}, but is "
            f"{level!r}."
        )
    return levels[level.upper()]


def _variable(name: str, environment: Mapping[str, str]) -> str | None:
    """An environment variable by either prefix; None if unset or empty."""
    return environment.get(f"SHOAL_{name}") or environment.get(f"RAY_{name}") or None
