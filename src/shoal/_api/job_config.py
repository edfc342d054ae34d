"""``JobConfig``: settings of one driver's job, given to ``init(job_config=…)``.

Most of them are parameters of ``init`` as well; where both are given, ``init``'s own
parameter counts.

Source: Ray's ``JobConfig`` (names and defaults as Ray 2.60 shows them).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from shoal._api.init_arguments import InitArguments
from shoal._api.option_checks import check_env_vars

_LIFETIMES = ("non_detached", "detached")


class JobConfig:
    """Settings of a job.

    Args:
        jvm_options: for workers in Java, which do not exist here.
        code_search_path: for workers in Java and C++, which do not exist here.
        runtime_env: environment of the job's workers.
        metadata: what the program wants to be noted about the job; text by text.
        ray_namespace: where the names of its actors are known.
        default_actor_lifetime: "non_detached"; "detached" is not possible yet.

    Raises:
        NotImplementedError: an argument that this version cannot serve.
        TypeError: metadata that is not text by text.
        ValueError: an unknown lifetime.
    """

    def __init__(
        self,
        jvm_options: list[str] | None = None,
        code_search_path: list[str] | None = None,
        runtime_env: dict[str, Any] | None = None,
        _client_job: bool = False,
        metadata: dict[str, str] | None = None,
        ray_namespace: str | None = None,
        default_actor_lifetime: str = "non_detached",
    ) -> None:
        for name, value in (
            ("jvm_options", jvm_options),
            ("code_search_path", code_search_path),
        ):
            if value:
                raise NotImplementedError(
                    f"JobConfig({name}=...) is for workers in Java or C++, which do "
                    "not exist here: leave it out."
                )
        self.runtime_env: dict[str, Any] = {}
        self.metadata: dict[str, str] = {}
        self.ray_namespace = ray_namespace
        self.logging_config: object | None = None
        self.set_runtime_env(runtime_env)
        self.set_default_actor_lifetime(default_actor_lifetime)
        for key, text in (metadata or {}).items():
            self.set_metadata(key, text)

    def set_metadata(self, key: object, value: object) -> None:
        """Note something about the job: a key and a value, both text.

        Raises:
            TypeError: key or value is not text.
        """
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata is text by text, but has {key!r}: {value!r}.")
        self.metadata[key] = value

    def set_runtime_env(self, runtime_env: Mapping[str, Any] | None) -> None:
        """Set the environment of the job's workers.

        Raises:
            TypeError: ``env_vars`` is not text by text.
        """
        env = dict(runtime_env or {})
        check_env_vars("runtime_env", env.get("env_vars"))
        self.runtime_env = env

    def set_ray_namespace(self, ray_namespace: str) -> None:
        """Set where the names of the job's actors are known."""
        self.ray_namespace = ray_namespace

    def set_default_actor_lifetime(self, default_actor_lifetime: str) -> None:
        """Set the lifetime of actors that say none.

        Raises:
            NotImplementedError: "detached".
            ValueError: an unknown lifetime.
        """
        if default_actor_lifetime not in _LIFETIMES:
            raise ValueError(
                f"default_actor_lifetime is one of {list(_LIFETIMES)}, not "
                f"{default_actor_lifetime!r}."
            )
        if default_actor_lifetime == "detached":
            raise NotImplementedError(
                'default_actor_lifetime="detached" is not possible yet: give '
                'lifetime="detached" to each actor that is to stay.'
            )
        self.default_actor_lifetime = default_actor_lifetime

    def set_py_logging_config(self, logging_config: object | None = None) -> None:
        """Set the LoggingConfig of driver and workers."""
        self.logging_config = logging_config

    @classmethod
    def from_json(cls, job_config_json: Mapping[str, Any]) -> JobConfig:
        """The config that a dict of the same names stands for."""
        return cls(
            jvm_options=job_config_json.get("jvm_options"),
            code_search_path=job_config_json.get("code_search_path"),
            runtime_env=job_config_json.get("runtime_env"),
            metadata=job_config_json.get("metadata"),
            ray_namespace=job_config_json.get("ray_namespace"),
            default_actor_lifetime=job_config_json.get(
                "default_actor_lifetime", "non_detached"
            ),
        )


def with_job_config(arguments: InitArguments) -> InitArguments:
    """The arguments of ``init`` with what only the job config says filled in.

    Raises:
        TypeError: ``job_config`` is not a JobConfig.
    """
    config = arguments.job_config
    if config is None:
        return arguments
    if not isinstance(config, JobConfig):
        raise TypeError(
            "init(job_config=...) must be a JobConfig or None, but is "
            f"{config!r} of type {type(config).__name__}."
        )
    return replace(
        arguments,
        runtime_env=arguments.runtime_env or config.runtime_env,
        namespace=arguments.namespace or config.ray_namespace,
        logging_config=arguments.logging_config or config.logging_config,
    )
