"""The Telemetry API and the Logs API: an agent gathers what happens, and hostile ones slow nobody."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.extensions.agents import SUBSCRIBING, agent, records

CODE = """
print("loading")
def handler(event, context):
    print("handling", event)
    if event == "fail": raise ValueError("no")
    return event
"""


def gathered(deployed: Any, name: str = "agent") -> list[dict[str, Any]]:
    """End the function's environment, and give all events that its agent has got before."""
    deployed.delete()
    (batches,) = deployed.collector.wait_for(name, "telemetry")
    return [event for batch in batches for event in batch["events"]]


def test_an_agent_gathers_platform_events_and_both_logs_and_ships_them_at_the_end(deployed: Any) -> None:
    deployed.deploy(CODE, {"agent": agent(deployed)}, MemorySize=256)
    assert deployed.invoke(event="hello") == "hello"
    assert deployed.collector.wait_for("agent", "subscribed") == [[200, "OK"]]
    events = gathered(deployed)
    kinds = [event["type"] for event in events if event["type"].startswith("platform.")]
    assert kinds == [
        f"platform.{kind}"
        for kind in (
            "initStart",
            "telemetrySubscription",
            "extension",
            "initRuntimeDone",
            "initReport",
            "start",
            "runtimeDone",
            "report",
        )
    ]
    (subscription,) = records(events, "platform.telemetrySubscription")
    types = ["platform", "function", "extension"]
    assert subscription == {"name": "agent", "state": "Subscribed", "types": types}
    assert records(events, "platform.extension") == [
        {"name": "agent", "state": "Ready", "events": ["INVOKE", "SHUTDOWN"]}
    ]
    (report,) = records(events, "platform.initReport")
    assert (report["initializationType"], report["phase"], report["status"]) == ("on-demand", "init", "success")
    (start,), (done,), (whole,) = (records(events, f"platform.{kind}") for kind in ("start", "runtimeDone", "report"))
    assert start["version"] == "$LATEST"
    assert start["tracing"]["value"].startswith("Root=")
    assert start["requestId"] == done["requestId"] == whole["requestId"]
    assert (done["status"], done["metrics"]["producedBytes"]) == ("success", len('"hello"'))
    assert 0 < done["metrics"]["durationMs"] <= whole["metrics"]["durationMs"]
    assert whole["metrics"]["memorySizeMB"] == 256
    assert whole["metrics"]["billedDurationMs"] >= whole["metrics"]["initDurationMs"] > 0
    assert records(events, "function") == ["loading", "handling hello"]
    assert records(events, "extension") == ["agent ready", "agent saw INVOKE"]


def test_batches_come_to_the_path_that_was_named(deployed: Any) -> None:
    deployed.deploy(CODE, {"agent": agent(deployed)})
    deployed.invoke()
    deployed.delete()
    (batches,) = deployed.collector.wait_for("agent", "telemetry")
    assert {batch["path"] for batch in batches} == {"/in?a=b"}
    assert {batch["host"].partition(":")[0] for batch in batches} == {"sandbox.localdomain"}


def test_failures_and_timeouts_are_told(deployed: Any) -> None:
    deployed.deploy(CODE, {"agent": agent(deployed)}, Timeout=5)
    assert deployed.invoke(event="fail")[0] == "Unhandled"
    assert [record["status"] for record in records(gathered(deployed), "platform.runtimeDone")] == ["error"]


def test_a_call_that_times_out_is_told_before_the_end(deployed: Any) -> None:
    code = "import time\ndef handler(event, context): time.sleep(30)"
    deployed.deploy(code, {"agent": agent(deployed)}, Timeout=1)
    deployed.invoke()
    (batches,) = deployed.collector.wait_for("agent", "telemetry")
    events = [event for batch in batches for event in batch["events"]]
    assert records(events, "platform.runtimeDone")[0]["status"] == "timeout"
    assert records(events, "platform.report")[0]["status"] == "timeout"


def test_the_functions_log_says_who_has_subscribed(deployed: Any) -> None:
    deployed.deploy(CODE, {"agent": agent(deployed)})
    deployed.invoke()
    assert "TELEMETRY\tName: agent\tState: Subscribed\tTypes: [Platform, Function, Extension]" in deployed.log()


def test_lines_of_a_json_log_are_objects_in_newer_schemas(deployed: Any) -> None:
    code = "import json\ndef handler(event, context): print(json.dumps({'level': 'INFO', 'told': event}))"
    newer = SUBSCRIBING.replace("destination=", 'schemaVersion="2022-12-13", destination=')
    logging = {"LogFormat": "JSON"}
    deployed.deploy(code, {"agent": agent(deployed, newer)}, LoggingConfig=logging)
    deployed.invoke(event="x")
    assert records(gathered(deployed), "function") == [{"level": "INFO", "told": "x"}]


def test_the_logs_api_has_the_older_schema(deployed: Any) -> None:
    logs = SUBSCRIBING.replace("subscribe(extension, ", 'subscribe(extension, "/2020-08-15/logs", ').replace(
        "destination=", 'schemaVersion="2021-03-18", destination='
    )
    deployed.deploy(CODE, {"agent": agent(deployed, logs)})
    deployed.invoke(event="hello")
    events = gathered(deployed)
    kinds = [event["type"] for event in events if event["type"].startswith("platform.")]
    expected = ("logsSubscription", "extension", "start", "runtimeDone", "end", "report")
    assert kinds == [f"platform.{kind}" for kind in expected]
    (start,), (done,), (end,) = (records(events, f"platform.{kind}") for kind in ("start", "runtimeDone", "end"))
    request_id = start["requestId"]
    assert (done, end) == ({"requestId": request_id, "status": "success"}, {"requestId": request_id})
    assert records(events, "function") == ["loading\n", "handling hello\n"]


def test_a_tcp_listener_gets_a_line_for_each_event(deployed: Any) -> None:
    tcp = """
    import socket, threading
    extension = Extension("INVOKE", "SHUTDOWN")
    server = socket.create_server(("127.0.0.1", 0))
    lines = []
    def read():
        with server.accept()[0].makefile() as file:
            lines.extend(map(json.loads, file))
    reader = threading.Thread(target=read)
    reader.start()
    destination = {"protocol": "TCP", "port": server.getsockname()[1]}
    document = {"schemaVersion": "2022-07-01", "types": ["function"], "destination": destination}
    assert ask("PUT", "/2022-07-01/telemetry", document, **extension.headers)[0] == 200
    while extension.next()["eventType"] != "SHUTDOWN": pass
    deadline = time.monotonic() + 1
    while len(lines) < 2 and time.monotonic() < deadline: time.sleep(0.01)
    tell("lines", lines)
    """
    deployed.deploy(CODE, {"agent": deployed.python(tcp)})
    deployed.invoke(event="hello")
    deployed.delete()
    (lines,) = deployed.collector.wait_for("agent", "lines")
    assert records(lines, "function") == ["loading", "handling hello"]


WRONG = [
    ({"types": []}, "types should not be empty"),
    ({"types": ["secrets"]}, "types should be among platform, function, extension"),
    ({"schemaVersion": "1999-01-01"}, "schemaVersion should be one of"),
    ({"buffering": {"maxItems": 1}}, "maxItems should be between 1000 and 10000"),
    ({"buffering": {"timeoutMs": 1}}, "timeoutMs should be between 25 and 30000"),
    ({"buffering": {"maxBytes": 1 << 30}}, "maxBytes should be between 262144 and 1048576"),
    ({"destination": {"protocol": "UDP"}}, "protocol should be HTTP or TCP"),
    ({"destination": {"protocol": "TCP", "port": 0}}, "port should be between 1 and 65535"),
    ({"destination": {"protocol": "HTTP", "URI": "http://sandbox.localdomain/"}}, "URI port is not provided"),
    *(
        ({"destination": {"protocol": "HTTP", "URI": uri}}, "URI should begin with http://sandbox.localdomain")
        for uri in (
            "http://169.254.169.254:80/latest",
            "http://127.0.0.1:80/",
            "http://sandbox.localdomain@10.0.0.1:80/",
            "http://me@sandbox.localdomain:80/",
            "https://sandbox.localdomain:80/",
            "file:///etc/passwd",
            "http://sandbox.localdomain.example.com:80/",
        )
    ),
    ({"destination": {"protocol": "HTTP", "URI": "http://sandbox.localdomain:80/a b"}}, "URI is not valid"),
    ({"schemaVersion": None}, "schemaVersion should be one of"),
    ({"destination": {"protocol": "TCP", "port": 9001}}, "port 9001 is reserved"),
    (
        {"destination": {"protocol": "HTTP", "URI": "http://sandbox.localdomain"}, "types": []},
        "URI port is not provided; types should not be empty",  # as AWS's page has it
    ),
]


def test_subscriptions_that_are_wrong_are_refused_and_lead_nowhere_else(deployed: Any) -> None:
    documents = [{"destination": {"protocol": "TCP", "port": 1}, **wrong} for wrong, _ in WRONG]
    refused = f"""
    extension = Extension("INVOKE")
    answers = []
    for document in {documents!r}:
        document = {{"schemaVersion": "2022-07-01", "types": ["function"], **document}}
        status, _, body = ask("PUT", "/2022-07-01/telemetry", document, **extension.headers)
        answers.append([status, json.loads(body)])
    good = {{"schemaVersion": "2022-07-01", "types": ["function"], "destination": {{"protocol": "TCP", "port": 1}}}}
    of_logs = {{**good, "schemaVersion": "2020-08-15"}}
    for path, body in (("2022-07-01/telemetry", good), ("2022-07-01/telemetry/", good), ("2020-08-15/logs", of_logs)):
        answers.append([ask("PUT", "/" + path, body, **extension.headers)[0]])
    tell("answers", answers)
    extension.next()
    late = ask("PUT", "/2022-07-01/telemetry", good, **extension.headers)
    tell("late", [late[0], json.loads(late[2])["errorType"]])
    extension.next()
    """
    deployed.deploy(CODE, {"agent": deployed.python(refused)})
    deployed.invoke()
    (answers,) = deployed.collector.wait_for("agent", "answers")
    for (wrong, message), (status, said) in zip(WRONG, answers, strict=False):
        assert (status, said["errorType"]) == (400, "ValidationError"), wrong
        assert said["errorMessage"].startswith(message), wrong
    assert answers[-3:] == [[200], [200], [400]]  # once more changes nothing, and one API is enough
    assert deployed.collector.wait_for("agent", "late") == [[403, "Telemetry.SubscriptionClosed"]]


@pytest.fixture
def stranger() -> Iterator[tuple[int, list[bytes]]]:
    """Listen on a port of the machine, as any other program does."""
    heard: list[bytes] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port, heard
    server.shutdown()
    server.server_close()
    thread.join()


def test_nothing_is_sent_to_a_port_of_another_program(deployed: Any, stranger: tuple[int, list[bytes]]) -> None:
    port, heard = stranger
    naming = f"""
    extension = Extension("INVOKE", "SHUTDOWN")
    answer = subscribe(extension, destination={{"protocol": "HTTP", "URI": "http://sandbox.localdomain:{port}/"}})
    serve(extension)
    """
    deployed.deploy(CODE, {"naming": agent(deployed, naming), "agent": agent(deployed)})
    for _ in range(3):
        deployed.invoke(event="secret")
    assert records(gathered(deployed), "function").count("handling secret") > 0
    deployed.collector.wait_for("naming", "telemetry")
    assert heard == []


FLOODING = """
def handler(event, context):
    for _ in range(200): print("x" * 1000 + "\\n" * 200)
    return "done"
"""


def test_a_flood_is_dropped_and_counted(deployed: Any) -> None:
    deployed.deploy(
        FLOODING,
        {"agent": agent(deployed, SUBSCRIBING.replace("destination=", 'types=["platform", "function"], destination='))},
    )
    deployed.invoke()
    events = gathered(deployed)
    assert records(events, "platform.report")
    lines = records(events, "function")
    dropped = records(events, "platform.logsDropped")
    assert dropped
    assert len(lines) + sum(record["droppedRecords"] for record in dropped) == 200 * 201
    assert all(record["droppedBytes"] > 0 and record["reason"] for record in dropped)


FLOODING_AT_INIT = """
import sys
for _ in range(300): sys.stdout.write("x" * 1_000_000 + "\\n")
open("/tmp/loaded", "w").close()
def handler(event, context): return "done"
"""


def test_a_flood_before_a_subscription_costs_the_host_little_and_is_counted(deployed: Any) -> None:
    loaded = 'while not os.path.exists("/tmp/loaded"): time.sleep(0.01)\nport = listen()'
    late = SUBSCRIBING.replace("port = listen()", loaded)
    status = Path(f"/proc/{deployed.host.process.pid}/status")

    def most_megabytes() -> int:
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) >> 10

    before = most_megabytes()
    deployed.deploy(FLOODING_AT_INIT, {"agent": agent(deployed, late)})
    assert deployed.invoke() == "done"
    assert most_megabytes() - before < 50
    events = gathered(deployed)
    assert records(events, "platform.initStart")
    lost = sum(record["droppedBytes"] for record in records(events, "platform.logsDropped"))
    assert lost + sum(map(len, records(events, "function"))) >= 300_000_000


@pytest.mark.parametrize("listener", ["never answers", "is not there", "refuses", "speaks no HTTP"])
def test_a_listener_that_is_of_no_use_slows_no_call(deployed: Any, listener: str) -> None:
    useless = f"""
    import socket, threading
    extension = Extension("INVOKE", "SHUTDOWN")
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    listener = {listener!r}
    if listener == "is not there":
        server.close()
    elif listener == "refuses":
        Listener.status = 500
        port = listen()
    elif listener == "speaks no HTTP":
        def chat():
            while True:
                line = server.accept()[0]
                line.sendall(b"hello " * 20000)
                line.close()
        threading.Thread(target=chat, daemon=True).start()
    subscribe(extension, destination={{"protocol": "HTTP", "URI": f"http://sandbox.localdomain:{{port}}"}})
    while extension.next()["eventType"] != "SHUTDOWN": pass
    tell("ended", {{}})
    """
    deployed.deploy(FLOODING, {"useless": agent(deployed, useless)})
    assert deployed.invoke() == "done"
    began = time.monotonic()
    assert deployed.invoke() == "done"
    assert time.monotonic() - began < 5
    deployed.delete()
    deployed.collector.wait_for("useless", "ended")  # in the time that it has for its end


def test_what_comes_while_the_environment_is_frozen_is_delivered_with_the_next_call(deployed: Any) -> None:
    slow = SUBSCRIBING.replace("destination=", 'buffering={"timeoutMs": 400}, destination=')
    deployed.deploy(CODE, {"agent": agent(deployed, slow)})
    for word in ("one", "two"):
        assert deployed.invoke(event=word) == word
        until = time.monotonic() + 1.0  # longer than the batch waits: meanwhile the environment is stopped
        while time.monotonic() < until:
            time.sleep(0.1)
    events = gathered(deployed)
    lines = [line for line in records(events, "function") if line.startswith("handling")]
    assert lines == ["handling one", "handling two"]
    assert json.dumps(events).count('"platform.logsDropped"') == 0
