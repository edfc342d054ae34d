"""The version of shoal; public as ``shoal.__version__``."""

from __future__ import annotations

VERSION = "0.1.0"
