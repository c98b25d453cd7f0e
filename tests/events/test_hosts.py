"""Events on real hosts: what a function's configuration says of them, and what becomes of them when it goes."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serverfull.testing.clients import lambda_client
from serverfull.testing.deployments import deploy
from serverfull.testing.process import HostDidNotStart, HostProcess, LinesNotSeen

CODE = """
import json, os, pathlib, time

def handler(event, context):
    folder = pathlib.Path(os.environ["OUT"])
    with (folder / "ran").open("a") as out:
        print(json.dumps([event, context.aws_request_id, os.environ["MARK"], context.invoked_function_arn]), file=out)
    while event == "wait" and not (folder / "go").exists():
        time.sleep(0.01)
    if event == "fail":
        raise ValueError("no")
"""
NO_LIMITS = {"SERVERFULL_EXECUTION__SANDBOX": "none", "SERVERFULL_EVENTS__BASE_DELAY": "0"}


def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


class Deployed:
    """Hosts one after the other on one state, and a function there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = self.start()

    def start(self) -> HostProcess:
        self.host = HostProcess.start(None, "--state", str(self.folder / "state"), cwd=self.folder, env=NO_LIMITS)
        self.client = lambda_client(self.host.url, region="eu-west-1")
        return self.host

    def deploy(self, mark: str) -> None:
        variables = {"OUT": str(self.folder), "MARK": mark}
        deploy(self.client, "f", {"app.py": CODE}, Timeout=60, Environment={"Variables": variables})

    def send(self, event: str, **members: Any) -> str:
        answer = self.client.invoke(FunctionName="f", InvocationType="Event", Payload=f'"{event}"', **members)
        assert answer["StatusCode"] == 202
        return str(answer["ResponseMetadata"]["RequestId"])

    def ran(self, mark: str | None = None) -> list[Any]:
        path = self.folder / "ran"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [row for row in rows if mark in (None, row[2])]

    def ended(self, request_id: str) -> str:
        """Wait until the host says how an event has ended that was no success."""
        return self.host.wait_for_stderr(request_id, 30)


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployed]:
    made = Deployed(tmp_path)
    yield made
    made.host.kill()


@pytest.mark.slow
def test_what_becomes_of_events_is_what_the_function_says_whatever_dies(deployed: Deployed) -> None:
    deployed.deploy("first")
    client = deployed.client
    version = client.publish_version(FunctionName="f")["Version"]
    client.create_alias(FunctionName="f", Name="live", FunctionVersion=version)
    for qualifier, retries in (("$LATEST", 0), ("live", 1)):
        client.put_function_event_invoke_config(
            FunctionName="f", Qualifier=qualifier, MaximumRetryAttempts=retries, MaximumEventAgeInSeconds=3600
        )
    failing = {count: deployed.send("fail", Qualifier=q) for count, q in ((1, "$LATEST"), (2, "live"), (3, version))}
    for count, request_id in failing.items():
        assert "RetriesExhausted" in deployed.ended(request_id)
        assert sum(row[1] == request_id for row in deployed.ran()) == count  # the same id for each attempt

    # Limits make events wait, and 0 ends them.
    client.put_function_concurrency(FunctionName="f", ReservedConcurrentExecutions=1)
    waiting = {deployed.send("wait"), deployed.send("wait")}
    first = until(lambda: next((row[1] for row in deployed.ran() if row[1] in waiting), None))

    # The host is killed while one runs and one waits: the next host has both.
    before = len(deployed.ran())
    deployed.host.kill()
    deployed.start()
    [running] = until(lambda: [row[1] for row in deployed.ran()[before:]])
    assert first in waiting
    assert running in waiting
    [second] = waiting - {running}
    third = deployed.send("third")

    # A namesake gets nothing that was sent to the function before it.
    deployed.client.delete_function(FunctionName="f")
    deployed.deploy("namesake")
    own = deployed.send("own")
    (deployed.folder / "go").write_text("")
    until(lambda: any(row[1] == own for row in deployed.ran("namesake")))
    for request_id in (second, third):
        assert "FunctionNotFound" in deployed.ended(request_id)
    assert {row[1] for row in deployed.ran("namesake")} == {own}
    deployed.client.put_function_concurrency(FunctionName="f", ReservedConcurrentExecutions=0)
    assert "ZeroReservedConcurrency" in deployed.ended(deployed.send("never"))
    assert deployed.host.stop() == 0


@pytest.mark.slow
def test_an_event_that_kills_its_host_each_time_is_put_aside_after_the_third(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import os\n"
        "def poison(event):\n"
        "    os.write(2, b'running\\n')\n"
        "    os._exit(9)\n"
        "functions = {'poison': poison, 'fine': lambda event: 1}\n"
    )
    env = {"SERVERFULL_EVENTS__PATH": str(tmp_path / "events")}
    deaths = 0
    while True:
        try:
            host = HostProcess.start("app.py:functions", cwd=tmp_path, env=env)
        except HostDidNotStart:  # it runs what waits before it says that it is ready
            deaths += 1
            continue
        if deaths == 0:
            with contextlib.suppress(OSError, http.client.HTTPException):  # it may be dead before it has answered
                host.invoke("poison", b"1", {"X-Amz-Invocation-Type": "Event"})
        with contextlib.suppress(LinesNotSeen):
            host.wait_for_stderr("HostDeaths", 20)
            break
        assert host.wait() == 9
        deaths += 1
    assert deaths == 3
    with host:
        assert host.invoke("fine").status == 200
