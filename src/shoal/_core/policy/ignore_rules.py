"""Which files a `.gitignore` file, or a list of such patterns, leaves out.

Theory.  Each pattern becomes one regular expression over the path relative to the
folder of the file.  The last pattern that matches decides, and one that begins with
`!` takes a path back in.  A folder that is left out is not entered, so nothing below
it can be taken back in: that is left to the caller, who walks.

What it does not do: it reads no files, knows no folders above its own, and has no
named classes such as `[[:alpha:]]`.

Source: the pattern format as documented in gitignore(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["IgnoreRules"]


class IgnoreRules:
    """The patterns of one file.

    Args:
        lines: patterns, with comments and blank lines as they stand in the file.
            Like git, a pattern that makes no sense matches nothing.
    """

    __slots__ = ("_rules",)

    def __init__(self, lines: Iterable[str]) -> None:
        self._rules: list[tuple[re.Pattern[str], bool, bool]] = []
        for line in lines:
            rule = _compiled(line)
            if rule is not None:
                self._rules.append(rule)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def decide(self, path: str, *, is_folder: bool) -> bool | None:
        """Is the path left out?  None when no pattern says anything about it.

        Args:
            path: relative to the folder of the file, its parts joined by `/`.
            is_folder: patterns that end with `/` are for folders only.
        """
        for pattern, leaves_out, is_for_folders in reversed(self._rules):
            if (is_folder or not is_for_folders) and pattern.fullmatch(path):
                return leaves_out
        return None


def _compiled(line: str) -> tuple[re.Pattern[str], bool, bool] | None:
    """(expression, does it leave out, is it for folders only), or None for no rule."""
    text = line.rstrip("\r\n")
    # Spaces at the end do not count unless the last of them is escaped.
    while text.endswith(" ") and not text.endswith("\\ "):
        text = text[:-1]
    if not text or text.startswith("#"):
        return None
    leaves_out = not text.startswith("!")
    if not leaves_out:
        text = text[1:]
    is_for_folders = text.endswith("/")
    text = text.rstrip("/")
    if not text:
        return None
    # Only a slash before the end ties the pattern to the folder of the file.
    start = "" if "/" in text else "(?:.*/)?"
    try:
        pattern = re.compile(start + _expression(text.removeprefix("/")), re.DOTALL)
    except re.error:
        return None  # such as a range that runs backwards, [z-a]
    return pattern, leaves_out, is_for_folders


_NOTHING = "(?!)"  # matches no text at all
# What follows "[": a bracket that closes at once is a member, an escaped one too.
_CHARACTER_CLASS = re.compile(r"([!^]?)(\]?(?:\\.|[^\]\\])*)\]")
_STARS_OVER_FOLDERS = re.compile(r"(?:(?<=/)|^)\*\*(/|$)")


def _expression(text: str) -> str:
    parts: list[str] = []
    position = 0
    while position < len(text):
        over_folders = _STARS_OVER_FOLDERS.match(text, position)
        if over_folders is not None:
            parts.append("(?:.*/)?" if over_folders[1] else ".+")
            position = over_folders.end()
            continue
        letter = text[position]
        position += 1
        if letter == "*":
            parts.append("[^/]*")
        elif letter == "?":
            parts.append("[^/]")
        elif letter == "\\" and position < len(text):
            parts.append(re.escape(text[position]))
            position += 1
        elif letter == "[":
            found = _CHARACTER_CLASS.match(text, position)
            if found is None:
                return _NOTHING
            parts.append(_class_expression(found[1] != "", found[2]))
            position = found.end()
        else:
            parts.append(re.escape(letter))
    return "".join(parts)


def _class_expression(is_negated: bool, members: str) -> str:
    letters = re.findall(r"\\.|.", members, re.DOTALL)
    parts: list[str] = []
    for index, letter in enumerate(letters):
        if letter == "-" and 0 < index < len(letters) - 1:
            parts.append("-")
        else:
            parts.append(re.escape(letter[-1]))
    inner = "".join(parts)
    return f"[^/{inner}]" if is_negated else f"(?!/)[{inner}]"
