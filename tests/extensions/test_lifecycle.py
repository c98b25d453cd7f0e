"""Extensions of functions on a real host: when they start, what they are told, and how they end."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serverfull.testing.clients import lambda_client
from serverfull.testing.process import HostProcess
from tests.extensions.agents import WATCHING

ECHO = """
print("loaded")
def handler(event, context):
    print("called")
    return event
"""


def test_a_shell_script_in_a_layer_is_told_of_all_that_happens(deployed: Any) -> None:
    deployed.deploy(ECHO, {"watcher.sh": deployed.program("watcher.sh")})
    assert deployed.invoke(event="one") == "one"
    collector = deployed.collector
    introduction = {"functionName": deployed.name, "functionVersion": "$LATEST", "handler": "app.handler"}
    assert collector.wait_for("watcher.sh", "registered") == [{**introduction, "accountId": "123456789012"}]
    (event,) = collector.wait_for("watcher.sh")
    assert (event["eventType"], event["tracing"]["type"]) == ("INVOKE", "X-Amzn-Trace-Id")
    assert event["invokedFunctionArn"] == f"arn:aws:lambda:eu-west-1:123456789012:function:{deployed.name}"
    assert time.time() < event["deadlineMs"] / 1000 < time.time() + 20
    deployed.delete()
    shutdown = collector.wait_for("watcher.sh", count=2)[-1]
    assert (shutdown["eventType"], shutdown["shutdownReason"]) == ("SHUTDOWN", "spindown")
    assert time.time() - 2 < shutdown["deadlineMs"] / 1000 < time.time() + 2


def test_the_log_says_which_extensions_there_are_and_holds_what_they_write(deployed: Any) -> None:
    deployed.deploy(ECHO, {"watcher.sh": deployed.program("watcher.sh")})
    deployed.invoke(event="one")
    deployed.collector.wait_for("watcher.sh")
    log = deployed.log()
    assert "EXTENSION\tName: watcher.sh\tState: Ready\tEvents: [INVOKE, SHUTDOWN]" in log
    assert log.index("EXTENSION") < log.index("START RequestId")
    assert 'watched {"eventType":' in log
    deployed.delete()


def test_the_runtime_is_started_when_all_extensions_have_registered(deployed: Any) -> None:
    slow = "time.sleep(0.3); open('/tmp/registers', 'w').close()\n"
    first = "import os\nFOUND = os.path.exists('/tmp/registers')\ndef handler(event, context): return FOUND"
    deployed.deploy(first, {"a": deployed.python(slow + WATCHING), "b": deployed.python(WATCHING)})
    assert deployed.invoke() is True


def test_extensions_have_the_environment_of_the_function_and_its_files(deployed: Any) -> None:
    looking = """
    open("/tmp/from-extension", "w").write("hello")
    seen = {name: os.environ.get(name) for name in ("AWS_REGION", "AWS_LAMBDA_FUNCTION_NAME", "_HANDLER", "MINE")}
    tell("seen", {**seen, "opt": sorted(os.listdir("/opt/extensions")), "uid": os.getpgid(0) == os.getpid()})
    """
    code = "def handler(event, context): return open('/tmp/from-extension').read()"
    text = deployed.python(looking) + WATCHING
    deployed.deploy(code, {"looker": text}, variables={"MINE": "mine"})
    assert deployed.invoke() == "hello"
    (seen,) = deployed.collector.wait_for("looker", "seen")
    expected = {"AWS_REGION": "eu-west-1", "AWS_LAMBDA_FUNCTION_NAME": deployed.name, "_HANDLER": None, "MINE": "mine"}
    assert seen == {**expected, "opt": ["looker"], "uid": True}


def test_the_caller_is_answered_before_the_extensions_are_done_and_the_environment_is_busy_until_then(
    deployed: Any,
) -> None:
    slow = """
    extension = Extension("INVOKE")
    while True:
        tell("event", {**extension.next(), "pid": os.getpid()})
        while not os.path.exists("/tmp/go"):
            time.sleep(0.01)
        os.remove("/tmp/go")
        tell("done", {})
    """
    code = """
import os
def handler(event, context):
    if event == "go": open("/tmp/go", "w").close()
    return os.getpid()
"""
    deployed.deploy(code, {"slow": deployed.python(slow)})
    first = deployed.invoke()  # answered, though the extension waits
    assert deployed.collector.of("slow", "done") == []
    second = deployed.invoke(event="go")  # in an environment of its own: the first one is not free
    assert second != first
    deployed.collector.wait_for("slow", "done")
    assert len({event["pid"] for event in deployed.collector.of("slow")}) == 2


def test_an_environment_is_used_again_when_its_extensions_have_asked_for_more(deployed: Any) -> None:
    code = "import os\ndef handler(event, context): return os.getpid()"
    quick = WATCHING.replace('tell("event", event)', 'tell("event", event["eventType"])')
    deployed.deploy(code, {"quick": deployed.python(quick)})
    pids = set()
    for count in range(3):
        pids.add(deployed.invoke())
        deployed.collector.wait_for("quick", count=count + 1)
        until = time.monotonic() + 0.3  # until it has asked, which nobody tells
        while time.monotonic() < until:
            time.sleep(0.05)
    assert len(pids) == 1


def test_a_runtime_has_time_to_end_too(deployed: Any) -> None:
    code = """
import os, signal, sys, urllib.request
def end(*_):
    urllib.request.urlopen(urllib.request.Request(os.environ["COLLECTOR"] + "/runtime/ended", b"bye"))
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
def handler(event, context): return event
"""
    deployed.deploy(code, {"watcher": deployed.python(WATCHING)})
    deployed.invoke()
    deployed.collector.wait_for("watcher")
    deployed.delete()
    deployed.collector.wait_for("watcher", count=2)
    kinds = [report.who for report in deployed.collector.reports]
    assert kinds == ["watcher", "runtime", "watcher"]


INTERNAL = """
import http.client, json, os, threading
def ask(method, path, body=None, **headers):
    line = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    line.request(method, "/2020-01-01/extension/" + path, body, headers)
    answer = line.getresponse()
    return answer.status, answer.getheader("Lambda-Extension-Identifier"), json.loads(answer.read())
named = {"Lambda-Extension-Name": "inside"}
REFUSED = ask("POST", "register", '{"events": ["SHUTDOWN"]}', **named)
_, identifier, _ = ask("POST", "register", '{"events": ["INVOKE"]}', **named)
AGAIN = ask("POST", "register", '{"events": ["INVOKE"]}', **named)
SEEN = []
def watch():
    while True:
        SEEN.append(ask("GET", "event/next", **{"Lambda-Extension-Identifier": identifier})[2]["requestId"])
        TOLD.set()
TOLD = threading.Event()
threading.Thread(target=watch, daemon=True).start()
def handler(event, context):
    TOLD.wait(10)
    LATE = ask("POST", "register", '{"events": []}', **{"Lambda-Extension-Name": "late"})
    errors = [answer[2]["errorType"] for answer in (REFUSED, AGAIN, LATE)]
    return [SEEN[-1] == context.aws_request_id, errors]
"""


@pytest.mark.parametrize("client", ["own", "awslambdaric"])
def test_a_thread_of_the_runtime_is_an_internal_extension(deployed: Any, client: str) -> None:
    if client == "awslambdaric":
        pytest.importorskip("awslambdaric")
    tags = {"serverfull:client": client}
    deployed.deploy(INTERNAL, {"watcher": deployed.python(WATCHING)}, Tags=tags)
    refusals = ["InvalidEventType", "InvalidExtensionState", "RegistrationClosed"]
    assert deployed.invoke() == [True, [f"Extension.{refusal}" for refusal in refusals]]


AT_HOME = """
import http.server, socket, threading
server = http.server.ThreadingHTTPServer(("sandbox.localdomain", 4243), http.server.SimpleHTTPRequestHandler)
extension = Extension("INVOKE")
while True:
    extension.next()
"""


def test_names_of_the_environment_are_a_loopback_of_its_own_where_each_can_listen_on_the_same_port(
    deployed: Any,
) -> None:
    code = "import socket, time\ndef handler(event, context):\n    time.sleep(0.5)\n    "
    deployed.deploy(code + "return [socket.gethostbyname(name) for name in event]", {"home": deployed.python(AT_HOME)})
    names = ["sandbox.localdomain", "sandbox.local", "sandbox"]
    with ThreadPoolExecutor(2) as callers:
        found = list(callers.map(lambda _: deployed.invoke(event=names), range(2)))
    assert [len(set(addresses)) for addresses in found] == [1, 1]
    assert len({addresses[0] for addresses in found}) == 2
    assert all(addresses[0].startswith("127.") for addresses in found)


def test_the_end_of_the_host_is_told_too_and_where_nothing_holds_a_sandbox(deployed: Any, tmp_path: Path) -> None:
    held_by_nothing = {"SERVERFULL_EXECUTION__SANDBOX": "none"}
    with HostProcess.start(None, "--state", "memory", env=held_by_nothing, cwd=tmp_path) as host:
        other = replace(deployed, host=host, client=lambda_client(host.url))
        other.deploy(ECHO, {"watcher": other.python(WATCHING)})
        assert other.invoke(event="one") == "one"
        other.collector.wait_for("watcher")
    last = deployed.collector.wait_for("watcher", count=2)[-1]
    assert (last["eventType"], last["shutdownReason"]) == ("SHUTDOWN", "spindown")


def test_environments_that_are_kept_ready_have_their_extensions_too(deployed: Any) -> None:
    deployed.deploy(ECHO, {"watcher": deployed.python(WATCHING)})
    client, names = deployed.client, {"FunctionName": deployed.name, "Qualifier": "1"}
    client.publish_version(FunctionName=deployed.name)
    client.put_provisioned_concurrency_config(**names, ProvisionedConcurrentExecutions=1)
    until = time.monotonic() + 20
    while client.get_provisioned_concurrency_config(**names)["Status"] != "READY":
        assert time.monotonic() < until
        time.sleep(0.05)
    client.invoke(**names)
    deployed.collector.wait_for("watcher")
    log = deployed.log()
    assert 0 <= log.index("EXTENSION\tName: watcher\tState: Ready") < log.index("START RequestId")
