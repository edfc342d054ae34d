"""``init``, ``shutdown`` and the session that the API of this process talks to."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import uuid
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from shoal._api.drop_in import is_installed_as_ray
from shoal._api.init_arguments import (
    InitArguments,
    auto_init_allowed,
    parse_init_arguments,
)
from shoal._api.job_config import with_job_config
from shoal._api.logging_config import logging_facts, set_up_driver_logging
from shoal._core.base.object_ref import hooks
from shoal._core.base.version import VERSION
from shoal._core.process.context import worker_state
from shoal._core.process.driver import Driver
from shoal._core.process.joining import (
    LocalSession,
    describe_job,
    join_newest,
    join_session,
)
from shoal._core.process.native import NativeSession
from shoal._core.process.node_settings import node_settings
from shoal._core.process.session import current, settle_interrupts
from shoal._core.process.supervisor import start_local


class Session:
    """What ``init`` made: the native session and the facts users ask for."""

    def __init__(
        self, native: Any, arguments: InitArguments | None, driver: Any
    ) -> None:
        self.native = native
        self.arguments = arguments
        self.driver = driver
        #: grows with each session, so that cached templates know theirs
        self.number = next_number()
        self.address_info: dict[str, Any] = {}

    def renew(self) -> None:
        """Have everybody work out anew what options mean here."""
        self.number = next_number()

    def merged_environment(self, env: Mapping[str, Any] | None) -> dict[str, Any]:
        """A task's runtime environment over the job's."""
        job = self.native.info.get("runtime_env") or {}
        if not env:
            return dict(job)
        merged = {**job, **env}
        if job.get("env_vars") and env.get("env_vars"):
            merged["env_vars"] = {**job["env_vars"], **env["env_vars"]}
        return merged


_numbers = iter(range(1, sys.maxsize))


def next_number() -> int:
    """A number no session had before."""
    return next(_numbers)


class _State:
    """The session of this process as the API sees it."""

    session: Session | None = None
    lock = threading.RLock()
    exit_is_registered = False


def current_session() -> Session:
    """The running session; made now if the API is used before ``init``.

    Raises:
        RuntimeError: none runs, and automatic init is switched off.
    """
    session = _State.session
    if session is not None:
        return session
    with _State.lock:
        if _State.session is not None:
            return _State.session
        native = current.session
        if native is not None:
            _State.session = Session(native, None, None)
            worker_state.on_captured = _State.session.renew
            return _State.session
        if current.is_forked:
            raise RuntimeError(
                f"This process ({os.getpid()}) was forked from one with a session, "
                "whose connections it cannot share. Use the API in the parent, start "
                "the process with multiprocessing's 'spawn' method, or call init() "
                "here for a session of its own (init(address=...) to join one)."
            )
        if not auto_init_allowed(os.environ):
            raise RuntimeError(
                "shoal.init() has not been called, and automatic init is switched off "
                "(SHOAL_ENABLE_AUTO_CONNECT=0)."
            )
        init()
        session = _State.session
        assert session is not None
        return session


def running_session() -> Session | None:
    """The running session; None when there is none."""
    if _State.session is None and current.session is not None:
        return current_session()
    return _State.session


class RayContext(Mapping[str, Any]):
    """What ``init`` returns; also a context manager that shuts down at its end."""

    def __init__(self, session: Session) -> None:
        self.dashboard_url: str | None = None
        self.python_version = ".".join(map(str, sys.version_info[:3]))
        self.ray_version = VERSION
        self.ray_commit = ""
        self.address_info = session.address_info

    def disconnect(self) -> None:
        """End the session."""
        shutdown()

    def __enter__(self) -> RayContext:
        return self

    def __exit__(self, *_: object) -> None:
        shutdown()

    def __getitem__(self, key: str) -> Any:
        warnings.warn(
            "reading the context as a dictionary is deprecated: use "
            f'.address_info["{key}"]',
            DeprecationWarning,
            stacklevel=2,
        )
        return self.address_info[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.address_info)

    def __len__(self) -> int:
        return len(self.address_info)

    def __repr__(self) -> str:
        return (
            f"RayContext(python_version={self.python_version!r}, "
            f"ray_version={self.ray_version!r}, session_dir="
            f"{self.address_info.get('session_dir')!r})"
        )


def init(address: str | None = None, **options: Any) -> RayContext:
    """Start a session on this machine, or join one that runs here.

    Args:
        address: None or ``"local"``: a new session, always (None: unless
            ``SHOAL_ADDRESS`` or ``RAY_ADDRESS`` is set, which is taken then).
            ``"auto"``: this user's running session that was started last.  What
            ``get_runtime_context().gcs_address`` is in another program: its session.
        options: the other parameters of Ray's ``init``.  What the node has
            (``num_cpus``, ``resources``, …) can't be given when joining.

    A program that joins has a job of its own: its import path, folder and namespace
    hold for its workers alone, and what it made ends with it, but for detached actors.
    The session ends with the program that started it.

    Raises:
        ConnectionError: there is no such session to join.
        RuntimeError: a session runs in this program already; an unknown parameter.
        TypeError, ValueError: a parameter is not as it must be.
    """
    with _State.lock:
        given = {"address": address, **options}
        if running_session() is not None:
            if given.get("ignore_reinit_error"):
                assert _State.session is not None
                return RayContext(_State.session)
            raise RuntimeError(
                "Maybe you called ray.init twice by accident? A session runs already: "
                "call shutdown() first, or pass ignore_reinit_error=True."
            )
        arguments = parse_init_arguments(given, os.environ)
        session = _start(arguments)
        current.is_forked = False
        _State.session = session
        current.session = session.native
        if not _State.exit_is_registered:
            _State.exit_is_registered = True
            atexit.register(shutdown, _exiting_interpreter=True)
        return RayContext(session)


def _node_settings(arguments: InitArguments) -> dict[str, Any]:
    """What the daemon of a new session is told of its node."""
    return node_settings(
        num_cpus=arguments.num_cpus,
        num_gpus=arguments.num_gpus,
        memory_bytes=arguments.memory_bytes,
        object_store_bytes=arguments.object_store_bytes,
        resources=arguments.resources,
        labels=arguments.labels,
        name=arguments.node_name,
    )


def _job_facts(arguments: InitArguments) -> dict[str, Any]:
    """What every process of this program's job is told."""
    return {
        "namespace": arguments.namespace or str(uuid.uuid4()),
        "runtime_env": arguments.runtime_env,
        "as_ray": is_installed_as_ray(),
        "main_module": _main_module(),
        "logging": logging_facts(arguments.logging_config),
    }


def _start(arguments: InitArguments) -> Session:
    arguments = with_job_config(arguments)
    set_up_driver_logging(arguments)
    if arguments.local_mode:
        return _start_local_mode(arguments)
    facts = _job_facts(arguments)
    job = describe_job(facts, log_to_driver=arguments.log_to_driver)
    daemon = None
    if arguments.address is None:
        settings = _node_settings(arguments)
        local, daemon = start_local(settings, job, arguments.temp_dir)
    elif arguments.address == "auto":
        local = join_newest(arguments.temp_dir, job)
    else:
        local = join_session(arguments.address, job)
    driver = Driver(local, daemon)
    driver.start()
    native = NativeSession(local.peer, local.facts)
    session = Session(native, arguments, driver)
    session.address_info = _address_info(local)
    return session


def _start_local_mode(arguments: InitArguments) -> Session:
    """A session without processes; few programs want it, so it is imported late."""
    from shoal._core.process.local_mode import LocalModeSession  # noqa: PLC0415

    settings = _node_settings(arguments)
    settings["session"] = {**_job_facts(arguments), "labels": arguments.labels}
    session = Session(None, arguments, None)
    session.native = session.driver = LocalModeSession(settings, session.renew)
    session.address_info = session.driver.address_info
    return session


def _main_module() -> str:
    """The name that the program's own module has when it is not run as a script."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = getattr(main, "__file__", None) or "__main__"
    return os.path.splitext(os.path.basename(file))[0]


def _address_info(local: LocalSession) -> dict[str, Any]:
    return {
        "node_ip_address": "127.0.0.1",
        "redis_address": None,
        "object_store_address": f"{local.session_dir}/node.sock",
        "raylet_socket_name": f"{local.session_dir}/node.sock",
        "webui_url": "",
        "session_dir": local.session_dir,
        "metrics_export_port": 0,
        "gcs_address": local.address,
        "address": local.address,
        "dashboard_agent_listen_port": 0,
        "node_id": local.node_id.hex(),
    }


def shutdown(
    *, wait_for_processes: bool = False, _exiting_interpreter: bool = False
) -> None:
    """End the session that this program started, or leave the one that it joined.

    All that this program made ends: its tasks, actors, processes and objects.  A
    session it joined goes on without it, and so do detached actors there.

    Args:
        wait_for_processes: accepted for Ray's sake; every process has ended when this
            returns in any case.

    Does nothing when no session runs.  Called at exit by itself.
    """
    with _State.lock:
        session, _State.session = _State.session, None
        if session is None or session.driver is None:
            return
        current.session = None
        session.driver.stop()
        hooks.detach()
    settle_interrupts(is_exiting=_exiting_interpreter)


_before_fork = threading.local()
#: What a driver handles in ways of its own.
_OUR_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _hold_signals() -> None:
    """A signal for a child must not meet the parent's handlers, which it inherits."""
    _before_fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _OUR_SIGNALS)


def _let_signals_through() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _before_fork.mask)


def _after_fork_in_child() -> None:
    """A forked child may init anew; the parent's session is not its to use or end."""
    session = _State.session
    if current.session is None and session is not None:
        _State.session = None
        if session.driver is not None:
            session.driver.give_back_signals()
    _State.lock = threading.RLock()
    if (
        signal.SIGINT in signal.sigpending()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):
        # Raised in here it would be lost, so it ends the child as any other signal.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _let_signals_through()


# Runs after the handler of ``process.session``, which was registered first.
os.register_at_fork(
    before=_hold_signals,
    after_in_parent=_let_signals_through,
    after_in_child=_after_fork_in_child,
)


def is_initialized() -> bool:
    """Whether a session runs in this process."""
    return running_session() is not None
