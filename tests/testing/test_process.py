"""The driver of host processes notices what goes wrong with them."""

from __future__ import annotations

import signal

import pytest

from serverfull.testing.process import (
    HostDidNotStart,
    HostProcess,
    LinesNotSeen,
    ProcessesLeftBehind,
    plain_environment,
)

HELLO = """
def hello(event):
    print("greeting", event.get("name"))
    return "hi"

functions = {"hello": hello}
"""

LEAVES_A_PROCESS = """
import subprocess, sys

def start():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"],
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    child.returncode = 0  # so that nobody waits for it
    return child.pid

functions = {"start": start}
"""


def test_a_host_is_ready_answers_and_ends(serve) -> None:
    host = serve(HELLO)
    assert host.url == f"http://127.0.0.1:{host.port}"
    answer = host.invoke("hello", b'{"name": "Ada"}')
    assert (answer.status, answer.json()) == (200, "hi")
    assert host.wait_for_stdout("greeting Ada")
    assert host.stop() == 0
    assert host.stop() == 0


def test_a_path_is_served_by_its_attribute_functions(serve, tmp_path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(HELLO)
    assert serve(path).invoke("hello").json() == "hi"


def test_a_host_that_does_not_start_is_reported_with_what_it_wrote(tmp_path) -> None:
    with pytest.raises(HostDidNotStart, match=r"ended with 2(.|\n)*no_such_module"):
        HostProcess.start("no_such_module:functions", cwd=tmp_path)


def test_a_line_that_does_not_come_is_reported_with_what_came(serve) -> None:
    host = serve(HELLO)
    with pytest.raises(LinesNotSeen, match=r"no line with 'never'(.|\n)*serverfull ready"):
        host.wait_for_stdout("never", timeout=0.05)


def test_a_process_that_is_left_behind_is_reported_and_killed(tmp_path) -> None:
    path = tmp_path / "leaves.py"
    path.write_text(LEAVES_A_PROCESS)
    host = HostProcess.start(f"{path}:functions", cwd=tmp_path)
    child = host.invoke("start").json()
    with pytest.raises(ProcessesLeftBehind, match=str(child)):
        host.stop()
    assert host.stop() == 0


def test_the_hosts_own_exit_code_comes_back_also_after_another_signal(serve) -> None:
    assert serve(HELLO).stop(number=signal.SIGINT) == 130


def test_variables_that_configure_hosts_and_clients_are_not_passed_on(monkeypatch) -> None:
    for name in ("SERVERFULL_SERVER__PORT", "AWS_REGION", "PORT", "HARMLESS"):
        monkeypatch.setenv(name, "1")
    names = set(plain_environment())
    assert "HARMLESS" in names
    assert not names & {"SERVERFULL_SERVER__PORT", "AWS_REGION", "PORT"}
