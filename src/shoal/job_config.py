"""``shoal.job_config``: settings of one driver's job, for ``init(job_config=…)``."""

from __future__ import annotations

from shoal._api.job_config import JobConfig

__all__ = ["JobConfig"]
