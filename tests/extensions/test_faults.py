"""Extensions that do what they must not: the caller hears of it in AWS's words, and nothing of them is left."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.extensions.agents import WATCHING

ECHO = "def handler(event, context): return event"


def failure(answer: Any) -> tuple[str, str]:
    """Give the type of a function error, and its message without the id of the request."""
    kind, said = answer
    assert kind == "Unhandled"
    return said["errorType"], said["errorMessage"].partition("Error: ")[2]


@pytest.mark.parametrize(
    ("code", "error_type", "message"),
    [
        ("sys.exit(3)", "Extension.Crash", "exit status 3"),
        ("sys.exit(0)", "Extension.Crash", "exit code 0"),
        ("Extension(); os.kill(os.getpid(), 9)", "Extension.Crash", "signal: killed"),
        ("Extension().report('init', 'Mine.Broken'); sys.exit(1)", "Extension.InitError", "exit status 1"),
        ("Extension().report('init', 'Mine.Broken'); time.sleep(60)", "Extension.InitError", "Mine.Broken"),
        ("Extension().report('exit', 'Mine.Broken'); sys.exit(1)", "Extension.ExitError", "exit status 1"),
    ],
)
def test_an_extension_that_fails_at_init_fails_the_call(
    deployed: Any, code: str, error_type: str, message: str
) -> None:
    deployed.deploy(ECHO, {"broken": deployed.python(code)})
    assert failure(deployed.invoke()) == (error_type, message)
    assert f"Error Type: {error_type}" in deployed.log()


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        ("#!/bin/sh\n", 0o644, "fork/exec /opt/extensions/broken: permission denied"),
        ("#!/no/such/program\n", None, "fork/exec /opt/extensions/broken: no such file or directory"),
        ("neither script nor binary\n", None, "fork/exec /opt/extensions/broken: exec format error"),
    ],
)
def test_what_cannot_be_executed_is_a_launch_error(deployed: Any, text: str, mode: int | None, message: str) -> None:
    deployed.deploy(ECHO, {"broken": text}, mode=mode)
    assert failure(deployed.invoke()) == ("Extension.LaunchError", message)
    error = "PermissionDenied" if mode else "UnknownError"
    assert f"EXTENSION\tName: broken\tState: LaunchError\tEvents: []\tError Type: {error}" in deployed.log()


def test_more_than_ten_extensions_are_refused(deployed: Any) -> None:
    extensions = {f"e{number:02}": deployed.python(WATCHING) for number in range(11)}
    deployed.deploy(ECHO, extensions)
    assert failure(deployed.invoke()) == ("Extension.LaunchError", "Extension limit (10) reached")
    assert "Error Type: TooManyExtensions" in deployed.log()
    del extensions["e00"]
    deployed.deploy(ECHO, extensions, name="ten", Timeout=60)
    assert deployed.invoke("ten", "all ten") == "all ten"


def test_folders_among_the_extensions_are_none(deployed: Any) -> None:
    deployed.deploy(ECHO, {"folder/inner": "#!/bin/sh\nexit 1\n", "watcher": deployed.python(WATCHING)})
    assert deployed.invoke(event="well") == "well"


@pytest.mark.slow
def test_an_extension_that_never_registers_is_waited_for_ten_seconds_and_the_time_of_the_call(deployed: Any) -> None:
    deployed.deploy(ECHO, {"silent": deployed.python("tell('pid', os.getpid()); time.sleep(60)")}, Timeout=1)
    began = time.monotonic()
    assert deployed.invoke()[1]["errorType"] == "Sandbox.Timedout"
    assert 11 <= time.monotonic() - began < 20
    log = deployed.log()
    assert "Status: timeout" in log
    assert "EXTENSION\tName: silent\tState: Started\tEvents: []" in log
    assert_gone(deployed.collector.of("silent", "pid"))


def assert_gone(pids: list[int]) -> None:
    """Wait until there are no processes of these numbers, which are those of this machine."""
    assert pids
    until = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < until, pids
        time.sleep(0.02)


CRASHING = """
extension = Extension("INVOKE")
tell("pid", os.getpid())
extension.next()
os._exit(7)
"""


def test_an_extension_that_crashes_during_a_call_fails_it_and_the_others_are_told(deployed: Any) -> None:
    code = "import time\ndef handler(event, context): time.sleep(15)"
    deployed.deploy(code, {"crashing": deployed.python(CRASHING), "watcher": deployed.python(WATCHING)})
    assert failure(deployed.invoke()) == ("Extension.Crash", "exit status 7")
    last = deployed.collector.wait_for("watcher", count=2)[-1]
    assert (last["eventType"], last["shutdownReason"]) == ("SHUTDOWN", "failure")
    assert_gone(deployed.collector.of("crashing", "pid"))


def test_a_crash_between_calls_is_told_to_the_others_and_the_next_call_has_a_new_environment(deployed: Any) -> None:
    crashing = """
    import threading
    def crash():
        while not os.path.exists("/tmp/answered"):
            time.sleep(0.01)
        os._exit(1)
    extension = Extension("SHUTDOWN")
    threading.Thread(target=crash).start()
    extension.next()
    """
    code = """
import os
def handler(event, context):
    open("/tmp/answered", "w").close()
    return os.getpid()
"""
    watching = WATCHING.replace('"INVOKE", "SHUTDOWN"', '"SHUTDOWN"')
    deployed.deploy(code, {"crashing": deployed.python(crashing), "watcher": deployed.python(watching)})
    told = []
    pids = []
    for count in range(1, 4):
        pids.append(deployed.invoke())
        told = deployed.collector.wait_for("watcher", count=count)
    assert len({str(pid) for pid in pids}) == 3
    assert {(event["eventType"], event["shutdownReason"]) for event in told} == {("SHUTDOWN", "failure")}


def test_a_call_that_times_out_tells_the_extensions_so(deployed: Any) -> None:
    code = "import os, time\ndef handler(event, context): time.sleep(30)"
    watching = WATCHING.replace('tell("event", event)', 'tell("event", {**event, "pid": os.getpid()})')
    deployed.deploy(code, {"watcher": deployed.python(watching)}, Timeout=1)
    assert deployed.invoke()[1]["errorType"] == "Sandbox.Timedout"
    last = deployed.collector.wait_for("watcher", count=2)[-1]
    assert (last["eventType"], last["shutdownReason"]) == ("SHUTDOWN", "timeout")
    assert_gone([last["pid"]])


def test_a_runtime_that_ends_tells_the_extensions_of_a_failure(deployed: Any) -> None:
    deployed.deploy("import os\ndef handler(event, context): os._exit(5)", {"watcher": deployed.python(WATCHING)})
    assert failure(deployed.invoke()) == ("Runtime.ExitError", "Runtime exited with error: exit status 5")
    assert deployed.collector.wait_for("watcher", count=2)[-1]["shutdownReason"] == "failure"


def test_an_extension_that_is_not_done_in_time_ends_the_environment_but_not_the_answer(deployed: Any) -> None:
    hanging = """
    extension = Extension("INVOKE", "SHUTDOWN")
    tell("pid", os.getpid())
    extension.next()
    time.sleep(60)
    """
    deployed.deploy(ECHO, {"hanging": deployed.python(hanging), "watcher": deployed.python(WATCHING)}, Timeout=1)
    assert deployed.invoke(event="answered") == "answered"
    assert deployed.collector.wait_for("watcher", count=2)[-1]["shutdownReason"] == "timeout"
    assert_gone(deployed.collector.of("hanging", "pid"))
    assert "Task timed out after 1.00 seconds" in deployed.log()


def test_an_extension_that_hangs_at_its_end_is_killed_after_two_seconds(deployed: Any) -> None:
    hanging = """
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    extension = Extension("SHUTDOWN")
    child = os.fork()
    if child == 0:
        os.setsid()
        time.sleep(60)
    tell("pids", [os.getpid(), child])
    tell("event", extension.next())
    time.sleep(60)
    """
    deployed.deploy(ECHO, {"hanging": deployed.python(hanging)})
    deployed.invoke()
    (pids,) = deployed.collector.wait_for("hanging", "pids")
    deployed.delete()
    deployed.collector.wait_for("hanging")
    began = time.monotonic()
    assert all(Path(f"/proc/{pid}").exists() for pid in pids)
    assert_gone(pids)
    assert 1.0 < time.monotonic() - began < 8.0


def test_what_extensions_ask_wrongly_is_refused_in_aws_words(deployed: Any) -> None:
    wrong = """
    identified = {"Lambda-Extension-Identifier": "00000000-0000-4000-8000-000000000000"}
    base = "/2020-01-01/extension/"
    asked = [
        ask("POST", base + "register", {}),
        ask("POST", base + "register", b"{", **{"Lambda-Extension-Name": NAME}),
        ask("POST", base + "register", {"events": ["SLEEP"]}, **{"Lambda-Extension-Name": NAME}),
        ask("GET", base + "event/next"),
        ask("GET", base + "event/next", **{"Lambda-Extension-Identifier": "me"}),
        ask("GET", base + "event/next", **identified),
        ask("GET", "/2018-06-01/runtime/invocation/next"),
    ]
    extension = Extension("SHUTDOWN")
    asked += [
        ask("POST", base + "register", {}, **{"Lambda-Extension-Name": NAME}),
        ask("POST", base + "init/error", {}, **extension.headers),
    ]
    tell("asked", [[status, json.loads(body)["errorType"]] for status, _, body in asked])
    extension.next()
    """
    deployed.deploy(ECHO, {"wrong": deployed.python(wrong)})
    deployed.invoke()
    (asked,) = deployed.collector.wait_for("wrong", "asked")
    assert asked == [
        [403, "Extension.InvalidExtensionName"],
        [403, "InvalidRequestFormat"],
        [403, "Extension.InvalidEventType"],
        [403, "Extension.MissingExtensionIdentifier"],
        [403, "Extension.InvalidExtensionIdentifier"],
        [403, "Extension.UnknownExtensionIdentifier"],
        [404, "NotFound"],  # beside our own client, whose line nobody else has
        [403, "Extension.InvalidExtensionState"],
        [403, "Extension.MissingHeader"],
    ]


def test_the_limits_of_the_function_hold_its_extensions_too(deployed: Any) -> None:
    if os.environ.get("SERVERFULL_EXECUTION__SANDBOX") == "none":
        pytest.skip("nothing holds them there")
    greedy = """
    extension = Extension("INVOKE")
    extension.next()
    held = [bytearray(1 << 20) for _ in range(1000)]
    extension.next()
    """
    code = "import time\ndef handler(event, context): time.sleep(15)"
    deployed.deploy(code, {"greedy": deployed.python(greedy)}, MemorySize=128)
    kind, said = deployed.invoke()
    assert kind == "Unhandled"
    assert said["errorType"] in {"Extension.Crash", "Runtime.ExitError"}
    assert said["errorMessage"].endswith("signal: killed")
