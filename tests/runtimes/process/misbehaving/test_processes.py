"""Functions that take all processes, threads, descriptors and space that they can get."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from serverfull.runtimes.process.means import probe


@pytest.mark.parametrize(
    "deed",
    [
        "while True:\n    try: os.fork()\n    except OSError: pass",
        "while True:\n    try:\n        if os.fork() == 0: os.setsid()\n    except OSError: pass",
        "while True:\n    if os.fork() != 0: os._exit(0)",
        "while True:\n    if os.fork() == 0:\n        if os.fork() == 0: os._exit(0)\n        os._exit(0)",
    ],
    ids=["that stay", "that go away", "that take turns", "that are orphans at once"],
)
def test_processes_without_end_are_killed_at_the_deadline_and_others_are_served_meanwhile(host: Any, deed: str) -> None:
    if not probe().pids.startswith("cgroup"):
        pytest.skip(f"only a control group holds whoever forks without end: {dict(probe().why)}")
    function, beside = host.doing(deed, Timeout=2), host.doing("return os.getpid()")
    assert function.is_good()
    replies: list[Any] = []
    calling = threading.Thread(target=lambda: replies.append(function.call()))
    calling.start()
    while calling.is_alive():
        assert beside.call().result
        assert len(host.family()) < 1024 + 100
    calling.join()
    kind, _ = replies[0].failure
    assert kind in {"Sandbox.Timedout", "Runtime.ExitError"}


def test_threads_are_as_many_as_on_aws(host: Any) -> None:
    deed = """
        import threading
        gate, count = threading.Event(), 0
        threading.stack_size(65536)
        try:
            for count in range(10_000): threading.Thread(target=gate.wait).start()
        except RuntimeError: pass
        gate.set()
        return count
    """
    assert 900 <= host.doing(deed, MemorySize=1024).call().result <= 1024


def test_descriptors_are_as_many_as_on_aws(host: Any) -> None:
    deed = """
        held = []
        try:
            for _ in range(100_000): held.append(os.dup(1))
        except OSError as error:
            return [len(held), error.errno]
        finally:
            for one in held: os.close(one)
    """
    count, errno = host.doing(deed).call().result
    assert 1000 <= count <= 1024
    assert errno == 24


def test_a_full_tmp_is_the_functions_own_and_is_empty_again_for_the_next_process(host: Any) -> None:
    if probe().tmp != "tmpfs":
        pytest.skip(f"no /tmp of its own can be mounted here: {dict(probe().why)}")
    deed = """
        if event == "look": return ["filled" in os.listdir("/tmp"), os.statvfs("/tmp").f_bavail]
        if event == "exit": os._exit(0)
        with open("/tmp/filled", "wb", 0) as file:
            try:
                while True: file.write(bytes(1 << 20))
            except OSError as error:
                return [error.errno, os.path.getsize("/tmp/filled") >> 20]
    """
    function, other = host.doing(deed, MemorySize=128, Timeout=30), host.doing(deed)
    errno, size = function.call().result
    assert (errno, 500 <= size <= 512) == (28, True)
    assert function.call("look").result == [True, 0]
    there, room = other.call("look").result
    assert (there, room > 0) == (False, True)
    assert function.call("exit").error
    assert function.call("look").result[0] is False
