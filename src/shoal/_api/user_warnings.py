"""Warnings that point at the line of the user's program they are about.

``stacklevel`` counts calls, and an option is checked at a different depth in the
decorator, in ``.options()`` and in the old spellings; so the calls inside shoal are
counted when the warning is given.
"""

from __future__ import annotations

import os
import sys
import warnings

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def warn_user(text: str, category: type[Warning] = DeprecationWarning) -> None:
    """Warn of the nearest calling line that is not shoal's own."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)
