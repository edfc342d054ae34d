"""The patterns mean what git makes of them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from shoal._core.policy.ignore_rules import IgnoreRules

CASES = [
    # (patterns, path, is it a folder, is it left out)
    ("*.csv", "a.csv", False, True),
    ("*.csv", "deep/er/a.csv", False, True),
    ("*.csv", "a.csvx", False, False),
    ("/a", "a", False, True),
    ("/a", "b/a", False, False),
    ("a/b", "a/b", False, True),
    ("a/b", "c/a/b", False, False),
    ("build/", "build", True, True),
    ("build/", "build", False, False),
    ("build/", "x/build", True, True),
    ("a/*", "a/b", False, True),
    ("a/*.txt", "a/b/c.txt", False, False),
    ("**/x", "x", False, True),
    ("**/x", "a/b/x", False, True),
    ("a/**", "a", True, False),
    ("a/**", "a/b", False, True),
    ("a/**/z", "a/z", False, True),
    ("a/**/z", "a/b/c/z", False, True),
    ("a/**/z", "ab/z", False, False),
    ("x**y", "xaby", False, True),
    ("?.py", "a.py", False, True),
    ("?.py", "ab.py", False, False),
    ("[ab].py", "b.py", False, True),
    ("[!ab].py", "b.py", False, False),
    ("[!ab].py", "c.py", False, True),
    ("[0-9]", "7", False, True),
    ("[", "[", False, False),
    ("[z-a]", "b", False, False),
    ("[ab\\]]", "]", False, True),
    ("[^a]", "a", False, False),
    ("[a^]", "^", False, True),
    ("[.-0]", "a", False, False),
    ("[+--]x", ",x", False, True),
    ("a[!b]c", "a/c", False, False),
    ("[]x]", "]", False, True),
    ("[a\\]", "a", False, False),
    ("[[]", "[", False, True),
    ("# no", "# no", False, False),
    ("\\#yes", "#yes", False, True),
    ("\\!yes", "!yes", False, True),
    ("trailing  ", "trailing", False, True),
    ("space\\ ", "space ", False, True),
    ("*.log\n!keep.log", "keep.log", False, False),
    ("!keep.log\n*.log", "keep.log", False, True),
    ("a.b", "axb", False, False),
    ("/", "a", False, False),
    ("\n\n", "a", False, False),
]


@pytest.mark.parametrize(("patterns", "path", "is_folder", "expected"), CASES)
def test_patterns(patterns: str, path: str, is_folder: bool, expected: bool) -> None:
    rules = IgnoreRules(patterns.split("\n"))
    assert bool(rules.decide(path, is_folder=is_folder)) is expected


@pytest.mark.skipif(shutil.which("git") is None, reason="compares with git itself")
def test_git_agrees_with_every_case(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    asked = []
    for number, (patterns, path, is_folder, _) in enumerate(CASES):
        folder = tmp_path / str(number)
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text(patterns + "\n")
        if is_folder:
            target.mkdir(exist_ok=True)
        else:
            target.write_text("x")
        asked.append(f"{number}/{path}")
    answer = subprocess.run(
        ["git", "-C", str(tmp_path), "check-ignore", "--no-index", "--stdin", "-z"],
        input="\0".join(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    left_out = set(answer.stdout.split("\0"))
    for name, case in zip(asked, CASES, strict=True):
        assert (name in left_out) is case[3], case


def test_no_pattern_says_nothing() -> None:
    rules = IgnoreRules(["# only a comment"])
    assert not rules
    assert rules.decide("a", is_folder=False) is None
    assert IgnoreRules(["!a"]).decide("a", is_folder=False) is False
