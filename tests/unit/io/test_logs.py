"""Marked streams, the parser of their bytes, and the files they are kept in."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal._core.io.logs import LogFile, LogLine, LogPipe, TaskStream


class Pipe:
    """A pipe with a task stream at one end and everything read from the other."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.read_fd, False)
        self.task = "f"
        self.stream = TaskStream(self.write_fd, lambda: self.task)

    def raw(self) -> bytes:
        data = b""
        while select.select([self.read_fd], [], [], 0)[0]:
            part = os.read(self.read_fd, 65536)
            if not part:
                break
            data += part
        return data

    def lines(self) -> list[tuple[str, str]]:
        return [(line.name, line.text) for line in LogPipe().feed(self.raw())]

    def close(self) -> None:
        self.stream.close()
        os.close(self.write_fd)
        os.close(self.read_fd)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def test_a_marker_comes_first_and_when_the_name_changes(pipe: Pipe) -> None:
    print("one", file=pipe.stream)
    print("two", file=pipe.stream)
    pipe.task = "g"
    print("three", file=pipe.stream)
    raw = pipe.raw()
    assert raw.count(b"\x1eshoal\x1f") == 2
    assert [line[:2] for line in LogPipe().feed(raw)] == [
        ("f", "one"),
        ("f", "two"),
        ("g", "three"),
    ]


def test_one_print_is_one_write(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = []
    real_write = os.write

    def counting(fd: int, data: memoryview) -> int:
        writes.append(bytes(data))
        return real_write(fd, data)

    monkeypatch.setattr(os, "write", counting)
    print("a", "b", 3, file=pipe.stream)
    assert len(writes) == 1


def test_half_a_line_waits_for_flush_and_a_bar_does_not(pipe: Pipe) -> None:
    pipe.stream.write("half")
    assert pipe.raw() == b""
    pipe.stream.flush()
    assert pipe.raw().endswith(b"half")
    pipe.stream.write("\r 10%")
    assert pipe.raw() == b"\r 10%"


def test_it_is_a_text_file_like_any_other(pipe: Pipe) -> None:
    stream = pipe.stream
    assert not stream.isatty()
    assert stream.writable()
    assert not stream.readable()
    assert stream.fileno() == pipe.write_fd
    assert (stream.encoding, stream.errors) == ("utf-8", "backslashreplace")
    assert stream.name == "<stdout>"
    assert stream.line_buffering
    stream.reconfigure(line_buffering=True)
    assert stream.buffer.write(b"\xffbytes\n") == 7
    assert stream.buffer.write(memoryview(b"view\n")) == 5
    assert stream.buffer.write(b"") == 0
    stream.writelines(["x\n", "\u00e4\ud800\n"])
    assert pipe.lines() == [
        ("f", "\ufffdbytes"),
        ("f", "view"),
        ("f", "x"),
        ("f", "\u00e4\\ud800"),
    ]


def test_closing_the_stream_leaves_the_descriptor_open(pipe: Pipe) -> None:
    pipe.stream.close()
    with pytest.raises(ValueError, match="closed"):
        pipe.stream.write("x")
    with pytest.raises(ValueError, match="closed"):
        pipe.stream.buffer.write(b"x")
    assert os.write(pipe.write_fd, b"still\n") == 6


def test_names_are_made_harmless(pipe: Pipe) -> None:
    pipe.task = "evil\n\x1ename" + "n" * 1000
    print("x", file=pipe.stream)
    ((name, text),) = pipe.lines()
    assert text == "x"
    assert name.startswith("evil name")
    assert len(name) == 256


def test_a_forked_child_repeats_no_text_and_marks_again(pipe: Pipe) -> None:
    print("before", file=pipe.stream)
    pipe.stream.write("half")
    pid = os.fork()
    if pid == 0:
        print(" child", file=pipe.stream, flush=True)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    print("parent", file=pipe.stream)
    raw = pipe.raw()
    assert raw.count(b"half") == 1
    assert raw.count(b"\x1eshoal\x1ff\n") == 2
    texts = [line.text for line in LogPipe().feed(raw)]
    assert texts == ["before", "half child", "parent"]


def test_long_output_is_cut_at_line_ends_into_whole_writes(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[bytes] = []

    def record(fd: int, data: memoryview) -> int:
        pieces.append(bytes(data))
        return len(data)

    monkeypatch.setattr(os, "write", record)
    text = "".join(f"line {number} " + "x" * 90 + "\n" for number in range(200))
    text += "y" * 10_000 + "\n" + "end\n" + "z" * 9_000
    pipe.stream.write(text)
    pipe.stream.flush()
    monkeypatch.undo()
    assert all(
        len(piece) <= select.PIPE_BUF or piece.count(b"\n") <= 1 for piece in pieces
    )
    assert sum(not piece.endswith(b"\n") for piece in pieces) == 1
    parser = LogPipe()
    lines = [line.text for piece in pieces for line in parser.feed(piece)]
    lines += [line.text for line in parser.end()]
    assert lines == text.split("\n")


def test_short_writes_of_the_kernel_lose_nothing(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = bytearray()

    def three_at_a_time(fd: int, data: memoryview) -> int:
        got.extend(data[:3])
        return min(3, len(data))

    monkeypatch.setattr(os, "write", three_at_a_time)
    print("a longer line", file=pipe.stream)
    monkeypatch.undo()
    assert [line.text for line in LogPipe().feed(bytes(got))] == ["a longer line"]


def test_threads_keep_their_lines_apart(pipe: Pipe) -> None:
    def write(letter: str) -> None:
        for _ in range(200):
            pipe.stream.write(letter * 20 + "\n")

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = pipe.lines()
    assert sorted({text for _, text in lines}) == ["a" * 20, "b" * 20, "c" * 20]
    assert len(lines) == 600


def test_an_interrupted_write_is_repaired_by_the_next_marker(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = bytearray()

    def interrupted(fd: int, data: memoryview) -> int:
        got.extend(data[:9])
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pipe.stream.buffer.write(b"lost\n")
    monkeypatch.undo()
    pipe.stream.buffer.write(b"next\n")
    lines = LogPipe().feed(bytes(got) + pipe.raw())
    assert lines[-1] == LogLine("f", "next", False)


# ------------------------------------------------------------------------- parser


def texts(data: bytes) -> list[tuple[str, bool]]:
    parser = LogPipe()
    return [
        (line.text, line.is_overwritten) for line in [*parser.feed(data), *parser.end()]
    ]


def test_lines_before_any_marker_have_no_name() -> None:
    assert LogPipe().feed(b"boot\n") == [LogLine("", "boot", False)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"a\n\nb\n", [("a", False), ("", False), ("b", False)]),
        (b"a\r\nb\n", [("a", False), ("b", False)]),
        (b"no end", [("no end", False)]),
        (b"\r 10%\r 20%\r100%\n", [(" 10%", True), (" 20%", True), ("100%", False)]),
        (b"50%\r100%\r\n", [("50%", True), ("100%", False)]),
        (b"\r\r\rx\n", [("x", False)]),
        (b"a\x1eb\n", [("a\x1eb", False)]),
        (b"caf\xe9\n", [("caf\ufffd", False)]),
    ],
)
def test_line_ends(data: bytes, expected: list[tuple[str, bool]]) -> None:
    assert texts(data) == expected


def test_a_bar_at_the_end_of_a_read_is_passed_on_at_once() -> None:
    parser = LogPipe()
    assert parser.feed(b"10%\r") == [LogLine("", "10%", True)]
    assert parser.feed(b"20%\r") == [LogLine("", "20%", True)]


def test_a_line_end_cut_in_two_ends_the_line_for_good() -> None:
    parser = LogPipe()
    assert parser.feed(b"text\r") == [LogLine("", "text", True)]
    assert parser.feed(b"") == []
    assert parser.feed(b"\nnext\n") == [
        LogLine("", "text", False),
        LogLine("", "next", False),
    ]


def test_the_open_line_can_be_looked_at_and_stays_open() -> None:
    parser = LogPipe()
    assert parser.open_line() is None
    parser.feed(b"continue? ")
    assert parser.open_line() == LogLine("", "continue? ", True)
    assert parser.open_line() is None
    parser.feed(b"[y/n] ")
    assert parser.open_line() == LogLine("", "continue? [y/n] ", True)
    assert parser.feed(b"yes\n") == [LogLine("", "continue? [y/n] yes", False)]
    assert parser.end() == []


def test_a_half_line_belongs_to_the_task_that_wrote_it() -> None:
    data = b"\x1eshoal\x1ff\nhalf\x1eshoal\x1fg\nwhole\n"
    assert LogPipe().feed(data) == [
        LogLine("f", "half", False),
        LogLine("g", "whole", False),
    ]


def test_an_unfinished_marker_at_the_end_is_not_shown() -> None:
    parser = LogPipe()
    assert parser.feed(b"text\x1eshoal\x1fna") == []
    assert parser.open_line() == LogLine("", "text", True)
    assert parser.end() == [LogLine("", "text", False)]


def test_what_only_looks_like_a_marker_is_text() -> None:
    endless = b"\x1eshoal\x1f" + b"n" * 300
    assert texts(endless + b"\n") == [(endless.decode(), False)]


def test_long_lines_come_in_parts_between_characters() -> None:
    parser = LogPipe(line_bytes_max=10)
    text = "\u20ac" * 25  # three bytes each
    lines = [
        line for byte in text.encode() + b"\n" for line in parser.feed(bytes([byte]))
    ]
    assert "".join(line.text for line in lines) == text
    assert all(len(line.text.encode()) <= 10 for line in lines)


def test_binary_rubbish_without_end_is_bounded() -> None:
    parser = LogPipe(line_bytes_max=100)
    lines = parser.feed(b"\x80" * 10_000)
    assert len(lines) >= 99
    open_line = parser.open_line()
    assert open_line is not None
    assert len(open_line.text) <= 100
    parser.feed(b"\x80" * 100)
    assert parser.open_line() is not None


def test_a_limit_below_one_character_is_refused() -> None:
    with pytest.raises(ValueError, match="line_bytes_max"):
        LogPipe(3)


@given(st.data())
def test_where_the_bytes_are_cut_makes_no_difference(data: st.DataObject) -> None:
    parts = data.draw(
        st.lists(
            st.sampled_from(
                [b"a", b"\n", b"\xe2\x82\xac", b"\x1eshoal\x1ff\n", b"\x1e", b"shoal"]
            ),
            max_size=30,
        )
    )
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=10)))
    parser = LogPipe()
    lines = [
        line
        for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)
        for line in parser.feed(whole[start:end])
    ]
    at_once = LogPipe()
    assert [*lines, *parser.end()] == [*at_once.feed(whole), *at_once.end()]


# -------------------------------------------------------------------------- files


def test_lines_are_kept_as_printed(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "w.out")
    file.append_lines([LogLine("f", "one", False), LogLine("f", "50%", True)])
    file.append_lines([LogLine("g", "\ud800", False)])
    file.append_lines([])
    assert (tmp_path / "w.out").read_bytes() == b"one\n50%\r?\n"
    assert (tmp_path / "w.out").stat().st_mode & 0o777 == 0o600


def test_nothing_printed_leaves_no_file(tmp_path: Path) -> None:
    LogFile(tmp_path / "w.out").append(b"")
    assert list(tmp_path.iterdir()) == []


def test_full_files_move_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "w.out", max_bytes=10, backup_count=2)
    for number in range(5):
        file.append(b"%d2345678\n" % number)
    found = {path.name: path.read_bytes()[:1] for path in tmp_path.iterdir()}
    assert found == {"w.out": b"4", "w.out.1": b"3", "w.out.2": b"2"}


def test_one_append_above_the_limit_is_kept_whole(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "w.out", max_bytes=10, backup_count=0)
    file.append(b"x" * 50)
    assert file.path.stat().st_size == 50
    file.append(b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["w.out"]
    assert file.path.read_bytes() == b"new"


def test_a_failing_disk_is_told_of_later(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    file = LogFile(folder / "w.out")
    file.append(b"12345")
    file.append(b"678")
    assert file.lost_bytes == 8
    folder.mkdir()
    file.append(b"back\n")
    assert file.lost_bytes == 0
    assert file.path.read_bytes() == b"[shoal: 8 bytes of output lost]\nback\n"


@pytest.mark.parametrize("limits", [{"max_bytes": 0}, {"backup_count": -1}])
def test_bad_limits_are_refused(tmp_path: Path, limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="max_bytes must be"):
        LogFile(tmp_path / "w.out", **limits)
