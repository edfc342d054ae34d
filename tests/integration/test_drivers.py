"""Several programs on one session: how they join and work side by side."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import shoal as ray
from shoal._core.wire.frame import FrameReader, decoder, encode
from shoal._core.wire.node_messages import Hello
from shoal._core.wire.worker_messages import ConnectionRefused
from tests.integration.programs import Program, Shelf, eventually

MEBIBYTE = 1024 * 1024

pytestmark = pytest.mark.integration


# ---------------------------------------------------------------------------- joining


def test_a_program_that_joins_has_a_job_of_its_own(
    join: Callable[..., Program], tmp_path: Path
) -> None:
    """Its workers have its import path, folder and namespace, and its results."""
    (tmp_path / "only_theirs.py").write_text("def triple(x):\n    return 3 * x\n")
    program = join(
        """
        import only_theirs

        @ray.remote
        def work(x):
            context = ray.get_runtime_context()
            return only_theirs.triple(x), os.getcwd(), context.namespace

        value, folder, namespace = ray.get(work.remote(5))
        say(value, folder, namespace, ray.get_runtime_context().get_job_id())
        say(ray.cluster_resources()["CPU"], ray.nodes()[0]["NodeID"])
        """,
        cwd=tmp_path,
    )
    context = ray.get_runtime_context()
    assert program.hear() == f"15 {tmp_path} theirs 02000000"
    assert program.hear() == f"2.0 {context.get_node_id()}"
    assert program.finish()[1] == ""
    assert context.get_job_id() == "01000000"
    assert context.namespace != "theirs"

    @ray.remote
    def where() -> str:
        return os.getcwd()

    assert ray.get(where.remote()) == os.getcwd()


@pytest.mark.parametrize(
    "variables", [{"address": "auto"}, {"SHOAL_ADDRESS": ""}, {"RAY_ADDRESS": ""}]
)
def test_other_ways_to_say_which_session(
    address: str, launch: Callable[..., Program], variables: dict[str, str]
) -> None:
    """``address="auto"`` and the environment's variables."""
    given = repr(variables.get("address"))
    names = {name: address for name in variables if name.isupper()}
    program = launch(f"say(ray.init({given}).address_info['address'])", **names)
    assert program.hear() == address
    assert program.finish()[1] == ""


@pytest.mark.parametrize("form", ["{}", "{}/", "{}/node.sock", "unix:{}/node.sock"])
def test_forms_of_the_address(
    address: str, launch: Callable[..., Program], form: str
) -> None:
    """The directory and the socket do as well."""
    path = form.format(address.removeprefix("unix:"))
    program = launch(f"say(ray.init({path!r}).address_info['address'])")
    assert program.hear() == address
    program.finish()


def test_auto_takes_the_newest_that_lives(
    address: str, launch: Callable[..., Program]
) -> None:
    """Ended sessions and older ones are passed over."""
    start = "say(ray.init(num_cpus=1).address_info['address'])\nwait()"
    newer = launch(start)
    newer_address = newer.hear()
    ended = launch(start, SHOAL_KEEP_SESSION_DIR="1")
    ended_address = ended.hear()
    ended.go_on()
    ended.finish()
    assert os.path.isdir(ended_address.removeprefix("unix:"))
    joining = "say(ray.init('auto').address_info['address'])"
    assert launch(joining).hear() == newer_address
    newer.go_on()
    newer.finish()
    assert launch(joining).hear() == address


def test_nothing_to_join(temp_dir: str) -> None:
    """ConnectionError, and no session in this process."""
    ray.shutdown()
    with pytest.raises(ConnectionError, match="Could not find a running session"):
        ray.init(address="auto", _temp_dir=temp_dir)
    with pytest.raises(ConnectionError, match="no session of this user runs there"):
        ray.init(address=f"unix:{temp_dir}/gone")
    assert not ray.is_initialized()


def test_what_the_node_has_is_not_for_a_joining_program(
    address: str, launch: Callable[..., Program]
) -> None:
    """ValueError for num_cpus and the like."""
    program = launch(
        f"""
        try:
            ray.init({address!r}, num_cpus=4)
        except ValueError as error:
            say(error)
        """
    )
    assert "num_cpus must not be given" in program.hear()
    program.finish()


def test_another_release_is_refused_and_told_why(address: str) -> None:
    """The daemon answers a Hello of another version with a refusal."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(f"{address.removeprefix('unix:')}/node.sock")
        sock.settimeout(10)
        sock.sendall(encode(Hello(99, "driver", bytes(16), os.getpid(), "00" * 16)))
        reader = FrameReader(decoder(ConnectionRefused))
        (refusal,) = reader.feed(sock.recv(1 << 16))
        assert "protocol" in refusal.reason
        assert sock.recv(1) == b""


# ----------------------------------------------------------------------- side by side


def test_output_goes_to_the_program_whose_task_it_is(
    join: Callable[..., Program], capfd: pytest.CaptureFixture[str]
) -> None:
    """Printed lines are seen in the driver of the job, and in no other."""

    @ray.remote
    def speak(text: str) -> None:
        sys.stdout.write(f"{text}\n")

    program = join(
        """
        @ray.remote
        def speak(text):
            print(text)

        ray.get(speak.remote("their words"))
        ray.shutdown()
        """
    )
    theirs, _ = program.finish()
    ray.get(speak.remote("our words"))
    ours = ""

    def is_heard() -> bool:
        nonlocal ours
        ours += capfd.readouterr().out
        return "our words" in ours

    eventually(is_heard, "our task's output did not come")
    assert "their words" in theirs
    assert "our words" not in theirs
    assert "their words" not in ours


def test_objects_pass_between_programs(join: Callable[..., Program]) -> None:
    """A ref, large or small, can be read in the other program."""
    shelf = Shelf.options(name="shelf", namespace="theirs").remote()
    ray.get(shelf.put.remote("large", [ray.put(np.arange(MEBIBYTE))]))
    ray.get(shelf.put.remote("small", [ray.put("a word")]))
    program = join(
        """
        shelf = ray.get_actor("shelf")
        (large,), (small,) = ray.get([shelf.take.remote(n) for n in ("large", "small")])
        say(ray.get(large).sum(), ray.get(small))
        ray.get(shelf.put.remote("back", [ray.put(np.ones(1 << 20))]))
        say("is put")
        wait()
        """
    )
    assert program.hear() == f"{np.arange(MEBIBYTE).sum()} a word"
    assert program.hear() == "is put"
    (back,) = ray.get(shelf.take.remote("back"))
    assert ray.get(back).sum() == MEBIBYTE
