"""``shoal.remote_function``: the class of what ``@remote`` makes of a function."""

from __future__ import annotations

from shoal._api.remote_function import RemoteFunction

__all__ = ["RemoteFunction"]
