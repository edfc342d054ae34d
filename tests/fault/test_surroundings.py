"""What a session needs of its machine, shows to it, and leaves on it."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from pathlib import Path

import psutil
import pytest

from shoal._core.io.peer_credentials import same_user
from shoal._core.io.session_dirs import make_root
from tests.fault.conftest import Start
from tests.fault.programs import Program, eventually

pytestmark = pytest.mark.integration

NOBODY = 65534

READY = """
    ray.init(num_cpus=2)
    assert ray.get(ray.remote(lambda: 1).remote()) == 1
    say("ready")
    sys.stdin.readline()
    """


# ------------------------------------------------------------------------- limits


def test_256_open_files_are_enough_for_ten_actors(start: Start) -> None:
    program = start(
        """
        import resource
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (256, 256)
        ray.init()

        @ray.remote(num_cpus=0)
        class A:
            def __init__(self):
                self.data = ray.put(bytes(300_000))
            def share(self):
                return [self.data]
            def read(self, refs):
                return len(ray.get(refs[0]))

        actors = [A.remote() for _ in range(10)]
        shares = ray.get([a.share.remote() for a in actors])
        pairs = [a.read.remote(refs) for a in actors for refs in shares]
        assert ray.get(pairs) == [300_000] * 100
        f = ray.remote(lambda x: x)
        assert ray.get([f.remote(i) for i in range(1000)]) == [*range(1000)]
        """,
        prefix=["sh", "-c", 'ulimit -n 256; exec "$@"', "sh"],
    )
    assert program.exit_code() == 0, program.errors()
    program.check_nothing_left()


def test_a_temporary_path_too_long_for_sockets_is_refused(
    start: Start, tmp_path: Path
) -> None:
    folder = tmp_path / ("a-long-name-" * 8)
    folder.mkdir()
    program = start("ray.init()", folder=folder)
    assert program.exit_code() == 1
    assert "ValueError" in program.errors()
    assert "_temp_dir" in program.errors()
    assert not program.processes()


# ----------------------------------------------------------------------- security


def test_nothing_listens_on_the_network(start: Start) -> None:
    program = start(READY)
    program.expect("ready")
    processes = [psutil.Process(program.process.pid), *program.processes()]
    assert len(processes) >= 4
    assert [one.net_connections("inet") for one in processes] == [[]] * len(processes)


def test_only_the_user_can_enter_the_sessions_directory(start: Start) -> None:
    program = start(READY)
    program.expect("ready")
    (session,) = program.session_dirs()
    for folder in (session.parent, session, session / "p", session / "logs"):
        assert folder.stat().st_mode & 0o777 == 0o700, folder


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_other_users_are_recognised(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="f") as open_to_all:
        os.chmod(open_to_all, 0o755)
        path = f"{open_to_all}/socket"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            os.chmod(path, 0o777)
            listener.listen()
            for user, is_same in ((0, True), (NOBODY, False)):
                child = os.fork()
                if child == 0:
                    os.setuid(user)
                    with socket.socket(socket.AF_UNIX) as sock:
                        sock.connect(path)
                        sock.recv(1)
                    os._exit(0)
                accepted, _ = listener.accept()
                with accepted:
                    assert same_user(accepted) is is_same
                os.waitpid(child, 0)


def test_a_root_directory_open_to_others_is_refused(start: Start) -> None:
    program = start("sys.stdin.readline(); ray.init()")
    (program.folder / f"shoal-{os.getuid()}").mkdir(mode=0o755)
    program.tell()
    assert program.exit_code() == 1
    assert "PermissionError" in program.errors()
    assert "_temp_dir" in program.errors()
    assert not program.session_dirs()


def test_a_root_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(elsewhere)
    with pytest.raises(PermissionError, match="link"):
        make_root(str(link))
    if os.getuid() == 0:
        os.chown(elsewhere, NOBODY, NOBODY)
        with pytest.raises(PermissionError, match="elsewhere"):
            make_root(str(elsewhere))


# -------------------------------------------------------------- what others left


def _kill_all_at_once(program: Program) -> None:
    """As when memory runs out: nobody is left to clean up."""
    processes = program.processes()
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    for process in processes:
        process.kill()
    program.kill()
    eventually(lambda: not program.processes(), "something does not die")


def test_directories_of_dead_sessions_are_removed(start: Start) -> None:
    alive = start(READY)
    alive.expect("ready")
    (of_alive,) = alive.session_dirs()
    dead = start(READY, folder=alive.folder)
    dead.expect("ready")
    _kill_all_at_once(dead)
    (of_dead,) = set(alive.session_dirs()) - {of_alive}
    assert (of_dead / "node.sock").exists()
    new = start(READY, folder=alive.folder)
    new.expect("ready")
    assert of_alive.exists()
    assert not of_dead.exists()
    for program in (alive, new):
        program.tell()
        assert program.exit_code() == 0, program.errors()
    assert not alive.session_dirs()
