"""Every setting of the system: its unit, default, limits and the reason for them.

Theory.  A number that somebody may want to change stands here and nowhere else.  A
setting `name` is taken from, the first that is there:

1. `init(_system_config={"name": …})`, which also takes Ray's name for it;
2. the environment variable `SHOAL_name`, in lower or in upper case;
3. the environment variable `RAY_name`, or `RAY_` and Ray's name for it.

Values are checked where they come in, and an error says where that was.

Invariants: a `Config` is a value, complete, within its limits, and never changed.

What it does not do: it reads no environment itself, it knows no machine (defaults
that depend on the memory at hand are fractions here), and the settings of single
tasks and actors are options, not configuration.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeVar

__all__ = ["Config", "Setting", "unused_ray_settings"]

_T = TypeVar("_T", int, float, bool, str)
KIB: Final = 1024
MIB: Final = 1024 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is known of one setting besides its value.

    Attributes:
        unit: of the value, such as "bytes"; empty for switches and texts.
        reason: why the default is what it is.
        minimum: the smallest value allowed, for numbers.
        maximum: the largest value allowed, for numbers.
        choices: the texts allowed; empty when any is.
        ray_names: what Ray calls it, with the factor from Ray's unit to ours.
    """

    unit: str
    reason: str
    minimum: float = -math.inf
    maximum: float = math.inf
    choices: tuple[str, ...] = ()
    ray_names: Mapping[str, float] = field(default_factory=dict)


def _setting(
    default: _T,
    reason: str,
    *,
    unit: str = "",
    minimum: float = -math.inf,
    maximum: float = math.inf,
    choices: tuple[str, ...] = (),
    ray: Mapping[str, float] | None = None,
) -> _T:
    """A field of `Config`; typed as its value, as `dataclasses.field` is."""
    about = Setting(
        unit=unit,
        reason=reason,
        minimum=minimum,
        maximum=maximum,
        choices=choices,
        ray_names=ray or {},
    )
    made: Any = field(default=default, metadata={"setting": about})
    return made  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one session; the same in all its processes.

    Raises:
        ValueError: a value outside its limits.
        TypeError: a value of the wrong type.
    """

    # ------------------------------------------------------------------- objects
    inline_limit_bytes: int = _setting(
        100 * KIB,
        "Copying 100 KiB through a socket costs about what asking the store for room "
        "does; smaller values are faster inside the message.",
        unit="bytes",
        minimum=0,
        maximum=16 * MIB,
        ray={"max_direct_call_object_size": 1},
    )
    inline_args_limit_bytes: int = _setting(
        10 * MIB,
        "All small arguments of one task together: a task with thousands of them "
        "must not become a message that holds up everything behind it.",
        unit="bytes",
        minimum=0,
        maximum=32 * MIB,
        ray={"task_rpc_inlined_bytes_limit": 1},
    )
    object_store_fraction: float = _setting(
        0.3,
        "Of the memory available at start; leaves most of it to the workers' heaps.",
        unit="fraction",
        minimum=0.01,
        maximum=0.95,
        ray={"DEFAULT_OBJECT_STORE_MEMORY_PROPORTION": 1},
    )
    object_store_min_bytes: int = _setting(
        75 * MIB,
        "Below this a store fills with the first few arrays; Ray refuses it too.",
        unit="bytes",
        minimum=1 * MIB,
    )
    object_store_max_bytes: int = _setting(
        200 * 10**9,
        "An upper bound of the default; init(object_store_memory=…) may exceed it.",
        unit="bytes",
        minimum=1 * MIB,
        ray={"DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": 1},
    )

    # ---------------------------------------------------------------- connections
    max_frame_bytes: int = _setting(
        64 * MIB,
        "A longer frame is an error or an attack; values of that size go through "
        "the store.",
        unit="bytes",
        minimum=1 * MIB,
        maximum=1024 * MIB,
    )

    # --------------------------------------------------------- leases and workers
    lease_idle_return_s: float = _setting(
        0.1,
        "Long enough to bridge the pause between two batches of a loop, short enough "
        "that nobody waits for a worker that does nothing.",
        unit="seconds",
        minimum=0,
        maximum=60,
    )
    worker_idle_retire_s: float = _setting(
        10.0,
        "A new worker is forked in milliseconds, so idle ones above one per CPU need "
        "not be kept for long; ten seconds outlast the pauses of a notebook loop.",
        unit="seconds",
        minimum=0,
        ray={"idle_worker_killing_time_threshold_ms": 0.001},
    )
    worker_register_timeout_s: float = _setting(
        60.0,
        "A worker normally registers within 0.1 s; on a machine that swaps, or with "
        "a slow file system under its imports, it has been seen to take half a "
        "minute.",
        unit="seconds",
        minimum=1,
        ray={"worker_register_timeout_seconds": 1},
    )
    worker_cap_factor: int = _setting(
        128,
        "Worker processes per CPU, those blocked in get included: a recursion of "
        "depth 200 on two CPUs needs 200 of them, a runaway one must end somewhere.",
        unit="processes per CPU",
        minimum=1,
        maximum=10_000,
    )
    blocked_notify_s: float = _setting(
        0.001,
        "A get that waits longer gives its CPU back; most gets are over by then, and "
        "telling the node daemon costs more than they do.",
        unit="seconds",
        minimum=0,
        maximum=60,
    )

    # ---------------------------------------------------------------------- tasks
    pipeline_window_max: int = _setting(
        256,
        "Tasks pushed ahead to one worker: enough to keep it busy for a round trip "
        "even when a task takes a microsecond.",
        unit="tasks",
        minimum=1,
        maximum=65_536,
        ray={"max_tasks_in_flight_per_worker": 1},
    )
    pipeline_target_s: float = _setting(
        0.002,
        "Work pushed ahead to one worker, by the smoothed run time of the function: "
        "some wake-ups' worth, and not so much that another idle worker would have "
        "done it earlier.",
        unit="seconds",
        minimum=0,
        maximum=10,
    )
    task_max_retries: int = _setting(
        3,
        "Of a task whose worker or node died, unless its options say otherwise; -1 "
        "is without end.",
        unit="retries",
        minimum=-1,
        ray={"TASK_MAX_RETRIES": 1},
    )
    function_size_warn_bytes: int = _setting(
        10 * 10**6,
        "A pickled function of this size nearly always has caught an array or a "
        "model by accident.",
        unit="bytes",
        minimum=1,
        ray={"FUNCTION_SIZE_WARN_THRESHOLD": 1},
    )
    function_size_limit_bytes: int = _setting(
        100 * 10**6,
        "Every worker keeps a copy of every function; beyond this it has to be an "
        "object.",
        unit="bytes",
        minimum=1,
        ray={"FUNCTION_SIZE_ERROR_THRESHOLD": 1},
    )

    # ------------------------------------------------------------ what users see
    infeasible_warning_s: float = _setting(
        1.0,
        "A task that nothing here can ever run is told of within two seconds; the "
        "first of them leaves a joining node time to appear.",
        unit="seconds",
        minimum=0,
    )
    wait_explanation_s: float = _setting(
        10.0,
        "When a get has waited this long, people begin to wonder why.",
        unit="seconds",
        minimum=0.1,
    )
    log_to_driver: bool = _setting(
        True,
        "Who writes print in a task looks for the output in the terminal.",
        ray={"LOG_TO_DRIVER": 1},
    )
    log_dedup: bool = _setting(
        True,
        "The same line from a hundred workers is one piece of news.",
        ray={"DEDUP_LOGS": 1},
    )
    log_dedup_window_s: float = _setting(
        5.0,
        "Workers of one job reach the same line within seconds of each other.",
        unit="seconds",
        minimum=0,
        maximum=3600,
        ray={"DEDUP_LOGS_AGG_WINDOW_S": 1},
    )
    log_dedup_allow_regex: str = _setting(
        "",
        "Lines in which it is found are never folded; empty matches none.",
        ray={"DEDUP_LOGS_ALLOW_REGEX": 1},
    )
    log_dedup_skip_regex: str = _setting(
        "",
        "Lines in which it is found are never shown; empty matches none.",
        ray={"DEDUP_LOGS_SKIP_REGEX": 1},
    )
    log_line_max_bytes: int = _setting(
        64 * KIB,
        "Longer lines come in parts, so that output without line ends is bounded.",
        unit="bytes",
        minimum=1 * KIB,
        maximum=16 * MIB,
    )
    log_rotation_bytes: int = _setting(
        100 * 10**6,
        "Of one log file; editors still open it.",
        unit="bytes",
        minimum=4 * KIB,
        ray={"ROTATION_MAX_BYTES": 1},
    )
    log_rotation_backups: int = _setting(
        5,
        "Older log files kept besides the newest.",
        unit="files",
        minimum=0,
        maximum=1000,
        ray={"ROTATION_BACKUP_COUNT": 1},
    )
    color_prefix: str = _setting(
        "",
        'Prefixes of worker output: "0" plain, "1" a colour per process, empty cyan '
        "on a terminal.",
        choices=("", "0", "1"),
        ray={"COLOR_PREFIX": 1},
    )
    auto_init: bool = _setting(
        True,
        "The first remote call starts a session, as in Ray.",
        ray={"ENABLE_AUTO_CONNECT": 1},
    )
    ignore_unhandled_errors: bool = _setting(
        False,
        "An error that nobody fetched is printed when its ref goes.",
        ray={"IGNORE_UNHANDLED_ERRORS": 1},
    )
    warn_blocking_get_inside_async: bool = _setting(
        True,
        "A blocking get in an async actor stops all its other calls.",
        ray={"WARN_BLOCKING_GET_INSIDE_ASYNC": 1},
    )

    # ------------------------------------------------------ runtime environments
    runtime_env_package_max_bytes: int = _setting(
        512 * MIB,
        "Of a packed working directory or module: data sets belong elsewhere.",
        unit="bytes",
        minimum=1 * KIB,
        ray={"GCS_STORAGE_MAX_SIZE": 1},
    )
    runtime_env_setup_timeout_s: float = _setting(
        600.0,
        "A setup that takes longer has hung.",
        unit="seconds",
        minimum=1,
    )

    def __post_init__(self) -> None:
        for name, about in self.settings().items():
            _check(name, getattr(self, name), about, f"Config({name}=…)")
        if self.function_size_warn_bytes > self.function_size_limit_bytes:
            raise ValueError(
                "function_size_warn_bytes must not be above "
                f"function_size_limit_bytes ({self.function_size_limit_bytes}), but "
                f"is {self.function_size_warn_bytes}"
            )
        if self.object_store_min_bytes > self.object_store_max_bytes:
            raise ValueError(
                "object_store_min_bytes must not be above object_store_max_bytes "
                f"({self.object_store_max_bytes}), but is {self.object_store_min_bytes}"
            )

    @classmethod
    def settings(cls) -> dict[str, Setting]:
        """All settings by name, in the order of this file."""
        return {made.name: made.metadata["setting"] for made in fields(cls)}

    @classmethod
    def from_mapping(
        cls, env: Mapping[str, str], system_config: Mapping[str, object]
    ) -> Config:
        """The configuration that an environment and `_system_config` ask for.

        Args:
            env: environment variables; those that name no setting are not looked at.
            system_config: settings by our name or by Ray's.  Names of Ray that mean
                nothing here (`unused_ray_settings`) are accepted without effect.

        Raises:
            ValueError: an unknown name in system_config, or a value outside its
                limits.
            TypeError: a value of the wrong type.
        """
        values: dict[str, Any] = {}
        defaults = {made.name: made.default for made in fields(cls)}
        for name, about in cls.settings().items():
            found = _find_in_env(name, about, env)
            if found is not None:
                source, text, factor = found
                value = _parse(source, text, defaults[name], factor)
                values[name] = _check(name, value, about, source)
        for key, given in system_config.items():
            target = _setting_called(key)
            if target is None:
                continue
            name, factor = target
            source = f"_system_config[{key!r}]"
            value = _parse(source, given, defaults[name], factor)
            values[name] = _check(name, value, cls.settings()[name], source)
        return cls(**values)


def unused_ray_settings(system_config: Mapping[str, object]) -> list[str]:
    """Names in `system_config` that Ray knows and that change nothing here."""
    return [
        key
        for key in system_config
        if key in _RAY_NAMES_WITHOUT_EFFECT and key not in Config.settings()
    ]


# Names that programs pass to Ray's `_system_config`.  They tune parts of Ray that have
# no counterpart here, or one that needs no tuning.
_RAY_NAMES_WITHOUT_EFFECT: Final = frozenset(
    {
        "actor_creation_min_retry_interval",
        "automatic_object_spilling_enabled",
        "enable_object_reconstruction",
        "enable_timeline",
        "event_stats",
        "event_stats_print_interval_ms",
        "fetch_fail_timeout_milliseconds",
        "gcs_rpc_server_reconnect_timeout_s",
        "gcs_server_request_timeout_seconds",
        "health_check_failure_threshold",
        "health_check_initial_delay_ms",
        "health_check_period_ms",
        "health_check_timeout_ms",
        "kill_idle_workers_interval_ms",
        "lineage_pinning_enabled",
        "local_gc_interval_s",
        "local_gc_min_interval_s",
        "max_io_workers",
        "max_lineage_bytes",
        "memory_monitor_refresh_ms",
        "memory_usage_threshold",
        "metrics_report_interval_ms",
        "min_spilling_size",
        "object_manager_default_chunk_size",
        "object_manager_max_bytes_in_flight",
        "object_manager_pull_timeout_ms",
        "object_spilling_config",
        "object_spilling_threshold",
        "object_store_full_delay_ms",
        "object_timeout_milliseconds",
        "raylet_heartbeat_period_milliseconds",
        "record_ref_creation_sites",
        "scheduler_spread_threshold",
        "scheduler_top_k_fraction",
        "task_oom_retries",
        "task_retry_delay_ms",
        "worker_lease_timeout_milliseconds",
        "worker_prestart_on_first_driver",
    }
)


def _setting_called(key: str) -> tuple[str, float] | None:
    """(our name, factor) of a setting by our or Ray's name; None: without effect."""
    settings = Config.settings()
    if key in settings:
        return key, 1
    for name, about in settings.items():
        if key in about.ray_names:
            return name, about.ray_names[key]
    if key in _RAY_NAMES_WITHOUT_EFFECT:
        return None
    known = {*settings, *_RAY_NAMES_WITHOUT_EFFECT}
    known.update(alias for about in settings.values() for alias in about.ray_names)
    near = difflib.get_close_matches(str(key), sorted(known), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "is it misspelt?"
    raise ValueError(f"_system_config has no setting {key!r}; {hint}")


def _find_in_env(
    name: str, about: Setting, env: Mapping[str, str]
) -> tuple[str, str, float] | None:
    """(variable, text, factor) of the first variable that is set; empty counts not."""
    for prefix in ("SHOAL_", "RAY_"):
        for alias, factor in ({name: 1.0} | dict(about.ray_names)).items():
            for variable in (prefix + alias, prefix + alias.upper()):
                if env.get(variable):
                    return variable, env[variable], factor
    return None


_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("0", "false", "no", "off")


def _parse(source: str, given: object, default: object, factor: float) -> object:
    """`given` as a value of the default's type; texts are read, numbers converted."""
    if isinstance(given, str) and not isinstance(default, str):
        return _parse_text(source, given, default, factor)
    if factor != 1 and isinstance(given, (int, float)) and not isinstance(given, bool):
        given = given * factor
    if isinstance(default, bool) and given in (0, 1):
        return bool(given)
    return given


def _parse_text(source: str, text: str, default: object, factor: float) -> object:
    if isinstance(default, bool):
        if text.lower() in _TRUE:
            return True
        if text.lower() in _FALSE:
            return False
        raise ValueError(f"{source} must be 1 or 0 (true or false), not {text!r}")
    try:
        number = int(text) if isinstance(default, int) else float(text)
    except ValueError:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise ValueError(f"{source} must be {kind}, not {text!r}") from None
    return number if factor == 1 else number * factor


def _check(name: str, value: object, about: Setting, source: str) -> object:
    """`value` if it is of the setting's type and within its limits."""
    default = Config.__dataclass_fields__[name].default
    wanted = type(default)
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted:
        raise TypeError(
            f"{source} must be {wanted.__name__}, not {type(value).__name__}: {value!r}"
        )
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not about.minimum <= value <= about.maximum:
            raise ValueError(
                f"{source} must be from {about.minimum:g} to {about.maximum:g} "
                f"{about.unit}, not {value:g}"
            )
    elif about.choices and value not in about.choices:
        allowed = ", ".join(repr(choice) for choice in about.choices)
        raise ValueError(f"{source} must be one of {allowed}, not {value!r}")
    return value
