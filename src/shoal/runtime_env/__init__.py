"""Files, variables and setup functions for workers: `runtime_env=…`.

    import shoal as ray
    from shoal.runtime_env import RuntimeEnv

    ray.init(runtime_env=RuntimeEnv(working_dir=".", env_vars={"MODE": "test"}))

A plain dict with the same fields is as good.  This version serves `working_dir`,
`py_modules`, `env_vars`, `worker_process_setup_hook`, `excludes` and `config`; `pip`,
`uv`, `conda` and containers come later and raise `RuntimeEnvSetupError` now.
"""

from shoal._api.environments import RuntimeEnv, RuntimeEnvConfig

__all__ = ["RuntimeEnv", "RuntimeEnvConfig"]
