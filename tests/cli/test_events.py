"""``serverfull events`` and ``serverfull dlq``, against a real host."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import serverfull
from serverfull.api.event_views import OwnEvents
from serverfull.api.events import add_events
from serverfull.testing.process import HostProcess
from serverfull.workers import siblings
from serverfull.workers.shared_events import SharedEvents

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
        ("fails", "RetriesExhausted", 3),
        ("fails", "RetriesExhausted", 3),
        ("off", "ZeroReservedConcurrency", 0),
    ]
    until(lambda: sorted(event["State"] for event in listed("events", "--function", "slow")) == ["running", "waiting"])
    assert len(listed("events")) == 5
    assert len(listed("dlq", "--function", "fails")) == 2
    shown = json.loads(command("dlq", "show", first["Id"]))
    assert (shown["Payload"], shown["Response"]["FunctionError"]) == ({"a": 1}, "Unhandled")
    assert shown["Response"]["Payload"]["errorMessage"] == "not yet"
    lines = command("dlq", "list").splitlines()
    assert lines[0].split() == ["ID", "FUNCTION", "STATE", "AT", "ACCEPTED", "BYTES", "REQUEST", "WHY"]
    assert "RetriesExhausted: not yet" in lines[1]
    assert "ZeroReservedConcurrency: Function not invoked." in lines[3]

    # They cannot be both chosen and all; a deletion is asked about; what is not there is said.
    for arguments in (("dlq", "redrive"), ("dlq", "redrive", "1", "--all"), ("dlq", "purge", "--all")):
        assert run(*arguments, "--endpoint", host.url).returncode == 2
    gone = run("dlq", "redrive", "99999", "--endpoint", host.url)
    assert (gone.returncode, "1 were not there" in gone.stderr) == (1, True)
    assert "There is no event 99999" in run("events", "show", "99999", "--endpoint", host.url).stderr

    assert command("dlq", "purge", "--all", "--function", "off", "--yes") == "1 purged\n"
    [waiting] = [event for event in listed("events", "--function", "slow") if event["State"] == "waiting"]
    assert command("events", "purge", waiting["Id"], "--yes") == "1 purged\n"
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
        ("GET", "/0-1", b""),  # of a host with several workers
        ("POST", "/purge", b"{}"),
        ("POST", "/redrive", b'{"Ids": [1]}'),
        ("POST", "/redrive", b"nonsense"),
    ):
        answer = host.request(method, path + of, body)
        assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "InvalidParameterValueException")


async def test_workers_that_do_not_answer_are_named(
    start_host: Callable[..., Any], listen: Callable[..., Any], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(siblings, "PATIENCE", 0.2)
    host, doors = await start_host({"off": serverfull.Function(print, max_concurrency=0)}), siblings.open_doors(2)
    app = web.Application()
    view = SharedEvents(siblings.Siblings(0, doors)).view(OwnEvents(lambda: host.host.events))  # the other one is dead
    add_events(app, view, admit=lambda _: "r")
    server = await listen(app, host.host.settings.server)
    await host.invoke("off", 1, Invocation_Type="Event")
    await host.log.wait_for("event dropped")

    async def command(*arguments: str) -> Any:
        return await asyncio.to_thread(run, *arguments, "--endpoint", f"http://127.0.0.1:{server.port}")

    shown, redriven = await command("events", "list"), await command("dlq", "redrive", "0-1", "1-3")
    for done, begin, said in ((shown, "ID", "events are shown"), (redriven, "1 redriven", "events were redriven")):
        assert done.returncode == 1
        assert done.stdout.startswith(begin)
        assert done.stderr.startswith(f"{said} without those of worker 1: it did not answer within 0.2 seconds")
    for door in doors:
        door.close()


@pytest.mark.slow
def test_the_events_of_all_workers_are_those_of_one_host(run: Run, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    env = {"SERVERFULL_EVENTS__PATH": str(tmp_path / "events"), "SERVERFULL_EVENTS__BASE_DELAY": "0"}
    with HostProcess.start("app.py", "--workers", "2", cwd=tmp_path, env=env) as host:

        def listed(group: str, *arguments: str) -> list[Any]:
            done = run(group, "list", "--output", "json", "--endpoint", host.url, *arguments)
            assert (done.stderr, done.returncode) == ("", 0)
            found: list[Any] = json.loads(done.stdout)
            return found

        def figure(name: str) -> float:
            text = host.request("GET", "/metrics").body.decode()
            return float(re.findall(rf"^serverfull_async_{name} (.+)$", text, re.MULTILINE)[0])

        for number in range(20):
            assert host.invoke("off", b"%d" % number, {"X-Amz-Invocation-Type": "Event"}).status == 202
        deadline = time.monotonic() + 30
        while len(ended := listed("dlq")) < 20:
            assert time.monotonic() < deadline
        assert {event["Id"].partition("-")[0] for event in ended} == {"0", "1"}
        assert [event["AcceptedAt"] for event in ended] == sorted(event["AcceptedAt"] for event in ended)
        assert (figure('events_received_total{function="off"}'), figure('events_dropped_total{function="off"}')) == (
            (20, 20)
        )

        # Pages go from one worker to the next.
        paged, after = [], ""
        while page := host.request("GET", f"/_serverfull/events?limit=3&after={after}").json()["Events"]:
            paged += [event["Id"] for event in page]
            after = paged[-1]
        assert sorted(paged) == sorted(event["Id"] for event in ended)

        # A worker that has been killed is waited for, and whoever replaces it has its events.
        one = next(event["Id"] for event in ended if event["Id"].startswith("1-"))
        pids = {host.request("GET", "/_serverfull/info").json()["pid"] for _ in range(20)}
        os.kill(killed := pids.pop(), signal.SIGKILL)
        host.wait_for_stderr(f'"pid":{killed}')
        while (done := run("dlq", "list", "--endpoint", host.url)).returncode:  # it takes very long on a busy machine
            assert time.monotonic() < deadline
        assert len(done.stdout.splitlines()) == 1 + 20
        assert json.loads(run("events", "show", one, "--endpoint", host.url).stdout)["Id"] == one
        assert run("dlq", "redrive", one, "0-1", "--endpoint", host.url).stdout == "2 redriven\n"
        assert "ids name the worker" in run("dlq", "show", "1", "--endpoint", host.url).stderr
        assert "There is no event 1-99" in run("dlq", "show", "1-99", "--endpoint", host.url).stderr

        # Whoever is asked knows the names of all events.
        def named(payload: bytes) -> int:
            headers = {"X-Amz-Invocation-Type": "Event", "X-Amz-Durable-Execution-Name": "order-7"}
            return host.invoke("slow", payload, headers).status

        assert [named(b"7") for _ in range(10)] == [202] * 10
        assert [named(b"8") for _ in range(10)] == [409] * 10
        assert len(listed("events", "--function", "slow")) == 1

        deadline = time.monotonic() + 30
        while len(listed("dlq")) < 20:  # those that were redriven have been given up again
            assert time.monotonic() < deadline
        done = run("dlq", "purge", "--all", "--yes", "--endpoint", host.url)
        assert (done.stdout, done.stderr) == ("20 purged\n", "")
        (tmp_path / "mended").write_text("")
