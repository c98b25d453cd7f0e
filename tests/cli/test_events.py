"""``serverfull events`` and ``serverfull dlq``, against a real host."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serverfull.testing.process import HostProcess

Run = Callable[..., Any]

APP = """
import pathlib, time
import serverfull

def fails(event):
    if not pathlib.Path("mended").exists():
        raise ValueError("not yet")

def slow(event):
    while not pathlib.Path("mended").exists():
        time.sleep(0.01)

functions = {
    "fails": fails,
    "slow": serverfull.Function(slow, timeout=60, max_concurrency=1),
    "off": serverfull.Function(fails, max_concurrency=0),
}
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostProcess]:
    (tmp_path / "app.py").write_text(APP)
    env = {"SERVERFULL_EVENTS__PATH": str(tmp_path / "events"), "SERVERFULL_EVENTS__BASE_DELAY": "0"}
    with HostProcess.start("app.py", cwd=tmp_path, env=env) as started:
        yield started


@pytest.mark.slow
def test_events_are_listed_shown_run_again_and_deleted(run: Run, host: HostProcess, tmp_path: Path) -> None:
    def command(*arguments: str) -> Any:
        done = run(*arguments, "--endpoint", host.url)
        assert done.stderr == ""
        return done.stdout

    def listed(group: str, *arguments: str) -> list[Any]:
        found: list[Any] = json.loads(command(group, "list", "--output", "json", *arguments))
        return found

    def until(condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 30
        while not (found := condition()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return found

    for name, payload in (("fails", b'{"a": 1}'), ("fails", b"2"), ("off", b"3"), ("slow", b"4"), ("slow", b"5")):
        assert host.invoke(name, payload, {"X-Amz-Invocation-Type": "Event"}).status == 202

    until(lambda: len(listed("dlq")) == 3)
    first, *_ = ended = listed("dlq")
    assert [(event["Function"], event["Condition"], event["Failures"]) for event in ended] == [
        ("fails", "RetriesExhausted", 2),
        ("fails", "RetriesExhausted", 2),
        ("off", "ZeroReservedConcurrency", 0),
    ]
    until(lambda: sorted(event["State"] for event in listed("events", "--function", "slow")) == ["running", "waiting"])
    assert len(listed("events")) == 5
    assert len(listed("dlq", "--function", "fails")) == 2
    shown = json.loads(command("dlq", "show", str(first["Id"])))
    assert (shown["Payload"], shown["Response"]["FunctionError"]) == ({"a": 1}, "Unhandled")
    assert shown["Response"]["Payload"]["errorMessage"] == "not yet"
    lines = command("dlq", "list").splitlines()
    assert lines[0].split() == ["ID", "FUNCTION", "STATE", "AT", "ACCEPTED", "BYTES", "REQUEST", "WHY"]
    assert "ZeroReservedConcurrency: Rate Exceeded." in lines[3]

    # They cannot be both chosen and all; a deletion is asked about; what is not there is said.
    for arguments in (("dlq", "redrive"), ("dlq", "redrive", "1", "--all"), ("dlq", "purge", "--all")):
        assert run(*arguments, "--endpoint", host.url).returncode == 2
    gone = run("dlq", "redrive", "99999", "--endpoint", host.url)
    assert (gone.returncode, "1 were not there" in gone.stderr) == (1, True)
    assert "There is no event 99999" in run("events", "show", "99999", "--endpoint", host.url).stderr

    assert command("dlq", "purge", "--all", "--function", "off", "--yes") == "1 purged\n"
    [waiting] = [event for event in listed("events", "--function", "slow") if event["State"] == "waiting"]
    assert command("events", "purge", str(waiting["Id"]), "--yes") == "1 purged\n"
    (tmp_path / "mended").write_text("")
    assert command("dlq", "redrive", "--all", "--output", "json") == '{"Redriven": 2}\n'
    until(lambda: listed("events") == [])
    figures = host.request("GET", "/metrics").body.decode()
    assert "serverfull_async_events_waiting 0.0" in figures
    assert 'serverfull_invocations_total{function="slow"} 1.0' in figures
    assert 'serverfull_invocations_total{function="fails"} 8.0' in figures  # three attempts each, and one more

    path = "/_serverfull/events"
    for method, of, body in (
        ("GET", "?state=lost", b""),
        ("GET", "?limit=0", b""),
        ("GET", "?after=x", b""),
        ("GET", "/x", b""),
        ("POST", "/purge", b"{}"),
        ("POST", "/redrive", b'{"Ids": ["1"]}'),
        ("POST", "/redrive", b"nonsense"),
    ):
        answer = host.request(method, path + of, body)
        assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "InvalidParameterValueException")


def test_a_host_with_several_workers_says_that_it_cannot_show_its_events(run: Run, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with HostProcess.start("app.py", "--workers", "2", cwd=tmp_path) as host:
        done = run("events", "list", "--endpoint", host.url)
        assert (done.returncode, "several workers" in done.stderr) == (1, True)
