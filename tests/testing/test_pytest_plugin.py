"""The pytest plugin as its users see it: in a pytest of its own, and by the hosts that it makes."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from serverfull import Function, RandomAnswers, StaticFetcher
from serverfull.errors import TargetInvalid
from serverfull.testing.hosts import ProcessHost, ThreadHost
from serverfull.testing.process import plain_environment

ROOT = Path(__file__).parents[2]
PLUGIN = "serverfull.testing.pytest_plugin"


class Refused(Exception):
    """The order is refused."""


@dataclass
class Order:
    item: str


def order(event: Order) -> dict[str, str]:
    return {"sold": event.item}


def refuse(event):
    raise Refused(event["item"])


FUNCTIONS = {"order": Function(order, errors=[Refused]), "refuse": refuse, "bytes": lambda: b"\x00\x01"}


def run_pytest(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run pytest with the plugin and no other one, whether serverfull is installed or not."""
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            PLUGIN,
            "-p",
            "no:cacheprovider",
            "-W",
            "error",
            "--rootdir",
            ".",
            *args,
        ],
        cwd=folder,
        env={**plain_environment(), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


# ------------------------------------------------------------------------------------------------------------ hosts


def test_calls_are_recorded_with_their_events_results_and_errors(thread_host) -> None:
    host = thread_host(FUNCTIONS)
    client = host.client()
    answer = client.invoke(FunctionName="order", Payload=b'{"item": "tea"}')
    assert json.load(answer["Payload"]) == {"sold": "tea"}
    client.invoke(FunctionName="refuse", Payload=b'{"item": "tar"}')
    client.invoke(FunctionName="bytes")
    first, second, third = host.calls
    assert (first.function, first.event, first.invocation_type) == ("order", {"item": "tea"}, "RequestResponse")
    assert (first.result, first.error) == ({"sold": "tea"}, None)
    assert first.request_id == answer["ResponseMetadata"]["RequestId"]
    assert (second.function, second.result) == ("refuse", None)
    assert second.error is not None
    assert (second.error["errorType"], second.error["errorMessage"]) == ("Refused", "tar")
    assert (third.event, third.result) == ({}, b"\x00\x01")


def test_an_event_is_recorded_when_it_has_run(thread_host) -> None:
    host = thread_host(FUNCTIONS)
    host.client().invoke(FunctionName="order", InvocationType="Event", Payload=b'{"item": "tea"}')
    (call,) = host.wait_for_calls()
    assert (call.invocation_type, call.result) == ("Event", {"sold": "tea"})


def test_waiting_for_calls_that_do_not_come_tells_which_came(thread_host) -> None:
    host = thread_host(FUNCTIONS)
    host.client().invoke(FunctionName="order", Payload=b'{"item": "tea"}')
    with pytest.raises(AssertionError, match=r"2 calls did not end within 0.05 s.*'item': 'tea'"):
        host.wait_for_calls(2, timeout=0.05)


def test_what_does_not_reach_a_function_is_no_call(thread_host) -> None:
    host = thread_host(FUNCTIONS)
    client = host.client()
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName="nothing")
    with pytest.raises(client.exceptions.InvalidRequestContentException):
        client.invoke(FunctionName="order", Payload=b"{")
    client.invoke(FunctionName="order", InvocationType="DryRun")
    assert host.calls == ()


def test_calls_of_mock_mode_are_recorded_and_run_no_handler(thread_host) -> None:
    host = thread_host({"fail": Function(lambda event: 1 / 0, mock="made up")}, mock=True)
    assert json.load(host.client().invoke(FunctionName="fail")["Payload"]) == "made up"
    assert host.calls[0].result == "made up"


def test_mock_mode_takes_a_source_of_answers(thread_host) -> None:
    def number() -> int:
        raise AssertionError("mock mode runs no handler")

    functions = StaticFetcher({"number": number})
    answers = [
        thread_host(functions, mock=RandomAnswers(seed)).client().invoke(FunctionName="number")["Payload"].read()
        for seed in (1, 1, 2)
    ]
    assert answers[0] == answers[1] != answers[2]


def test_two_hosts_at_once_do_not_mix_their_calls(thread_host) -> None:
    one, two = thread_host(FUNCTIONS), thread_host(FUNCTIONS)
    one.client().invoke(FunctionName="order", Payload=b'{"item": "tea"}')
    assert (len(one.calls), len(two.calls)) == (1, 0)


def test_handlers_share_objects_with_the_test(thread_host) -> None:
    seen = []
    thread_host({"see": seen.append}).client().invoke(FunctionName="see", Payload=b'"it"')
    assert seen == ["it"]


def test_a_host_that_cannot_start_says_why_to_who_starts_it() -> None:
    with pytest.raises(TargetInvalid, match="wide"):
        ThreadHost({"wide": lambda a, b, c: None})


def test_a_host_that_is_stopped_takes_no_calls_and_leaves_no_thread() -> None:
    host = ThreadHost(FUNCTIONS)
    client = host.client()
    host.stop()
    host.close()
    from botocore.exceptions import EndpointConnectionError

    with pytest.raises(EndpointConnectionError):
        client.invoke(FunctionName="order")
    assert not host._thread.is_alive()


def test_a_target_is_served_in_a_process_of_its_own(tmp_path) -> None:
    (tmp_path / "app.py").write_text("import os\nfunctions = {'pid': lambda: os.getpid(), 'name': lambda: 'Ada'}\n")
    with ProcessHost("app.py:functions", cwd=tmp_path) as host:
        assert json.load(host.client().invoke(FunctionName="pid")["Payload"]) == host.process.process.pid
        with pytest.raises(NotImplementedError, match="in the test's own process only"):
            host.wait_for_calls()
    (tmp_path / "answers.json").write_text('{"name": "Grace"}')
    with ProcessHost("app.py:functions", mock="answers.json", cwd=tmp_path) as host:
        assert json.load(host.client().invoke(FunctionName="name")["Payload"]) == "Grace"
        assert json.load(host.client().invoke(FunctionName="pid")["Payload"]) is None


def test_a_client_says_what_it_needs(thread_host, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ImportError, match="pip install boto3"):
        thread_host(FUNCTIONS).client()


@pytest.fixture
def thread_host():
    hosts = []

    def start(*args, **options):
        hosts.append(ThreadHost(*args, **options))
        return hosts[-1]

    yield start
    for host in hosts:
        host.close()


# ----------------------------------------------------------------------------------------------------------- plugin

USERS_TEST = """
import json
import pathlib

import pytest

from serverfull import RandomAnswers

ENDED = []


@pytest.fixture
def host(serverfull_host):
    return serverfull_host({"hello": lambda event: print("greeting") or "Hello " + event["name"]})


def test_functions(host):
    ENDED.append(host)
    answer = host.client().invoke(FunctionName="hello", Payload='{"name": "Ada"}')
    assert json.load(answer["Payload"]) == "Hello Ada"
    assert [call.event for call in host.calls] == [{"name": "Ada"}]


def test_the_host_of_the_test_before_has_ended():
    assert not ENDED[0]._thread.is_alive()


def test_mock_mode(serverfull_host):
    def number(event) -> int:
        raise AssertionError

    host = serverfull_host({"number": number}, mock=True)
    assert host.client().invoke(FunctionName="number")["Payload"].read() == b"0"
    pathlib.Path("answers.json").write_text('{"number": 7}')
    host = serverfull_host({"number": number}, mock="answers.json")
    assert host.client().invoke(FunctionName="number")["Payload"].read() == b"7"
    assert host.calls[0].result == 7
    hosts = [serverfull_host({"number": number}, mock=mock) for mock in ("random", RandomAnswers(0), "zero")]
    answers = [json.load(host.client().invoke(FunctionName="number")["Payload"]) for host in hosts]
    assert answers[0] == answers[1] != answers[2] == 0


def test_a_target(serverfull_host):
    pathlib.Path("app.py").write_text("import os\\nfunctions = {'colour': lambda: os.environ['COLOUR']}\\n")
    host = serverfull_host("app.py:functions", env={"COLOUR": "blue"})
    assert host.client().invoke(FunctionName="colour")["Payload"].read() == b'"blue"'
    host = serverfull_host(pathlib.Path("app.py"), mock=True)
    assert host.client().invoke(FunctionName="colour")["Payload"].read() == b"null"


def test_options_of_the_other_kind_are_refused(serverfull_host):
    with pytest.raises(TypeError):
        serverfull_host({"hello": print}, env={"A": "1"})
    with pytest.raises(TypeError):
        serverfull_host("app.py:functions", settings=None)
"""


def test_the_fixture_serves_users_tests(tmp_path) -> None:
    (tmp_path / "test_users.py").write_text(USERS_TEST)
    done = run_pytest(tmp_path)
    assert "5 passed" in done.stdout, done.stdout + done.stderr


def test_the_fixture_is_described_where_pytest_lists_fixtures(tmp_path) -> None:
    assert "serverfull_host" in run_pytest(tmp_path, "--fixtures").stdout


def test_loading_the_plugin_imports_nothing_that_takes_time(tmp_path) -> None:
    (tmp_path / "test_cheap.py").write_text(
        "import sys\n\ndef test_cheap():\n"
        "    heavy = {'aiohttp', 'botocore', 'boto3', 'pydantic', 'structlog', 'prometheus_client',\n"
        "             'serverfull.host', 'serverfull.testing.hosts', 'serverfull.testing.fixtures'}\n"
        "    assert not heavy & set(sys.modules)\n"
    )
    done = run_pytest(tmp_path)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_is_an_entry_point_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"serverfull": PLUGIN}


def test_the_projects_own_conftest_does_not_name_the_plugin_because_it_may_be_loaded_already() -> None:
    assert PLUGIN not in (ROOT / "conftest.py").read_text()
