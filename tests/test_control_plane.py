"""Functions that are deployed to a real host process with boto3: run, kept, refused, and seen by the right account."""

from __future__ import annotations

import base64
import json
import signal
import socket
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from serverfull.testing.clients import lambda_client
from serverfull.testing.deployments import ROLE, invoke, wait_until_ready, zipped
from serverfull.testing.process import HostDidNotStart, HostProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ACCOUNT = "123456789012"

COUNTING = """
import os, util
CALLS = [0]
def handler(event, context):
    CALLS[0] += 1
    print("working on", event)
    return {"table": os.environ.get("TABLE"), "calls": CALLS[0], "util": util.NAME, "version": context.function_version}
"""


def package(text: str, util: str = "NAME = 'util'") -> bytes:
    return zipped({"lambda_function.py": text, "util.py": util})


def client_of(host: HostProcess, region: str = "eu-west-1", account: str = ACCOUNT) -> Any:
    return lambda_client(host.url, access_key=account, region=region)


def deploy(client: Any, name: str, text: str = COUNTING, util: str = "NAME = 'util'", **members: Any) -> Any:
    made = client.create_function(
        FunctionName=name,
        Runtime="python3.11",
        Role=ROLE,
        Handler="lambda_function.handler",
        Code={"ZipFile": package(text, util)},
        **members,
    )
    wait_until_ready(client, name)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("host")


@pytest.fixture(scope="module")
def host(folder: Path) -> Iterator[HostProcess]:
    with HostProcess.start(None, "--state", str(folder / "state"), cwd=folder) as process:
        yield process


@pytest.fixture
def client(host: HostProcess, account: str) -> Any:
    return client_of(host, account=account)


def test_two_functions_that_ship_modules_of_one_name_each_get_their_own_and_their_own_variables(client: Any) -> None:
    deploy(client, "one", util="NAME = 'of one'", Environment={"Variables": {"TABLE": "first"}})
    deploy(client, "two", util="NAME = 'of two'", Environment={"Variables": {"TABLE": "second"}})
    assert invoke(client, "one") == {"table": "first", "calls": 1, "util": "of one", "version": "$LATEST"}
    assert invoke(client, "two") == {"table": "second", "calls": 1, "util": "of two", "version": "$LATEST"}
    assert invoke(client, "one")["calls"] == 2


def test_versions_keep_their_code_and_aliases_lead_to_them(client: Any) -> None:
    deploy(client, "f", util="NAME = 'old'")
    assert client.publish_version(FunctionName="f")["Version"] == "1"
    client.create_alias(FunctionName="f", Name="live", FunctionVersion="1")
    client.update_function_code(FunctionName="f", ZipFile=package(COUNTING, "NAME = 'new'"))
    wait_until_ready(client, "f")
    assert invoke(client, "f")["util"] == "new"
    live = client.invoke(FunctionName="f", Qualifier="live")
    assert live["ExecutedVersion"] == "1"
    assert b'"util": "old", "version": "1"' in live["Payload"].read()


def test_accounts_and_regions_see_only_what_is_theirs(host: HostProcess) -> None:
    mine, region, account = client_of(host), client_of(host, "us-east-1"), client_of(host, account="999999999999")
    deploy(mine, "f")
    for other in (region, account):
        assert other.list_functions()["Functions"] == []
        with pytest.raises(ClientError, match="Function not found"):
            other.invoke(FunctionName="f")


def test_reserved_concurrency_holds_at_once_and_goes_when_it_is_deleted(client: Any) -> None:
    deploy(client, "f")
    assert invoke(client, "f")["calls"] == 1
    client.put_function_concurrency(FunctionName="f", ReservedConcurrentExecutions=0)
    with pytest.raises(ClientError) as refused:
        client.invoke(FunctionName="f")
    assert refused.value.response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    client.delete_function_concurrency(FunctionName="f")
    assert invoke(client, "f")["calls"] == 2  # the code was not loaded again


def test_a_deleted_function_is_gone_and_a_new_one_of_its_name_is_new(client: Any) -> None:
    deploy(client, "f", util="NAME = 'old'")
    assert invoke(client, "f")["util"] == "old"
    client.delete_function(FunctionName="f")
    with pytest.raises(ClientError, match="Function not found"):
        client.invoke(FunctionName="f")
    deploy(client, "f", util="NAME = 'new'")
    assert invoke(client, "f") == {"table": None, "calls": 1, "util": "new", "version": "$LATEST"}


def test_the_url_of_the_code_downloads_it_and_a_forged_one_does_not(client: Any) -> None:
    deploy(client, "f")
    location = client.get_function(FunctionName="f")["Code"]["Location"]
    with urllib.request.urlopen(location, timeout=10) as download:
        assert download.read() == package(COUNTING)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(location[:-1] + ("0" if location[-1] != "0" else "1"), timeout=10)


def test_a_killed_host_has_everything_when_it_starts_again(tmp_path: Path) -> None:
    with HostProcess.start(None, "--state", "state", cwd=tmp_path) as first:
        client = client_of(first)
        deploy(client, "f", Tags={"team": "blue"})
        client.publish_version(FunctionName="f")
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(10)
    with HostProcess.start(None, "--state", "state", cwd=tmp_path) as second:
        client = client_of(second)
        assert invoke(client, "f", Qualifier="1")["version"] == "1"
        assert client.get_function(FunctionName="f")["Tags"] == {"team": "blue"}


def test_without_a_target_functions_are_kept_in_a_directory_of_their_own(tmp_path: Path) -> None:
    with HostProcess.start(None, cwd=tmp_path) as host:
        deploy(client_of(host), "f")
    assert (tmp_path / ".serverfull" / "state.db").stat().st_mode & 0o077 == 0


def test_a_second_host_on_one_directory_says_so_and_ends(client: Any, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(HostDidNotStart, match="another host"):
        HostProcess.start(None, "--state", str(folder / "state"), cwd=tmp_path)
    assert client.list_functions()["Functions"] == []


def test_a_taken_port_leaves_no_state_behind(host: HostProcess, tmp_path: Path) -> None:
    with pytest.raises(HostDidNotStart, match="another process"):
        HostProcess.start(None, "--state", "other", "--port", str(host.port), cwd=tmp_path)
    assert not (tmp_path / "other").exists()


def test_beside_a_target_functions_are_kept_until_the_host_ends_and_its_own_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("functions = {'mine': lambda: 'static'}")
    with HostProcess.start("app.py", cwd=tmp_path) as host:
        client = client_of(host)
        deploy(client, "added")
        assert [f["FunctionName"] for f in client.list_functions()["Functions"]] == ["added", "mine"]
        assert (invoke(client, "mine"), invoke(client, "added")["calls"]) == ("static", 1)
        for write in (
            lambda: deploy(client, "mine"),
            lambda: client.delete_function(FunctionName="mine"),
            lambda: client.put_function_concurrency(FunctionName="mine", ReservedConcurrentExecutions=1),
        ):
            with pytest.raises(ClientError, match="static fetcher") as refused:
                write()
            assert refused.value.response["Error"]["Code"] == "ResourceConflictException"
    assert {path.name for path in tmp_path.iterdir()} <= {"app.py", "__pycache__"}


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--mock",), "it is in mock mode"),
        (("--workers", "2"), "its worker processes share no state"),
        (("--host", "0.0.0.0", "--insecure-no-auth"), "on loopback alone"),
    ],
)
def test_hosts_that_can_run_no_deployed_code_take_none_and_say_why(
    tmp_path: Path, flags: tuple[str, ...], reason: str
) -> None:
    (tmp_path / "app.py").write_text("def mine() -> str: return 'static'\nfunctions = {'mine': mine}")
    with HostProcess.start("app.py", *flags, cwd=tmp_path) as host:
        client = client_of(host)
        with pytest.raises(ClientError, match=reason) as refused:
            deploy(client, "f")
        assert refused.value.response["Error"]["Code"] == "ResourceConflictException"
        assert [f["FunctionName"] for f in client.list_functions()["Functions"]] == ["mine"]
        assert client.list_aliases(FunctionName="mine")["Aliases"] == []
    with pytest.raises(HostDidNotStart, match="takes no deployments"):
        HostProcess.start("app.py", *flags, "--state", "state", cwd=tmp_path)
    with pytest.raises(HostDidNotStart, match=f"There is nothing to serve: name a TARGET .*{reason}"):
        HostProcess.start(None, *flags, cwd=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"app.py", "__pycache__"}


def test_deployed_code_runs_in_the_hosts_process_on_loopback_alone(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def mine() -> str: return 'static'\nfunctions = {'mine': mine}")
    inside = {"SERVERFULL_EXECUTION__MODE": "inprocess"}
    with pytest.raises(HostDidNotStart, match=r"execution\.mode is 'inprocess'.*on loopback alone"):
        HostProcess.start("app.py", "--host", "0.0.0.0", "--insecure-no-auth", cwd=tmp_path, env=inside)
    text = "import os\ndef handler(event, context): return os.getpid()"
    with HostProcess.start(None, "--state", "memory", cwd=tmp_path) as host:
        client = client_of(host)
        deploy(client, "outside", text)
        deploy(client, "inside", text, Tags={"serverfull:execution": "inprocess"})
        assert invoke(client, "inside") == host.process.pid != invoke(client, "outside")
    with HostProcess.start(None, "--state", "memory", cwd=tmp_path, env=inside) as host:
        client = client_of(host)
        deploy(client, "inside", text)
        deploy(client, "outside", text, Tags={"serverfull:execution": "process"})
        assert invoke(client, "inside") == host.process.pid != invoke(client, "outside")


WAITING = """
import contextlib, socket
def handler(event, context):
    with contextlib.suppress(ConnectionError):
        socket.create_connection(("127.0.0.1", event["port"]), 20).recv(1)
    return "done"
"""


class Gate:
    """Where calls of `WAITING` wait until it is opened: a port, as functions share no files with the test."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(20)
        self._calls: list[socket.socket] = []
        self.port: int = self._listening.getsockname()[1]

    def wait_for(self, count: int) -> None:
        while len(self._calls) < count:
            self._calls.append(self._listening.accept()[0])

    def open(self) -> None:
        for connection in (self._listening, *self._calls):
            connection.close()


def test_an_accounts_pool_is_what_functions_have_not_reserved(tmp_path: Path) -> None:
    limits = {"SERVERFULL_LIMITS__ACCOUNT_CONCURRENCY": "3", "SERVERFULL_LIMITS__MINIMUM_UNRESERVED": "1"}
    with HostProcess.start(None, "--state", "memory", cwd=tmp_path, env=limits) as host:
        client, gate = client_of(host), Gate()
        event = json.dumps({"port": gate.port}).encode()
        for name in ("common", "reserving"):
            deploy(client, name, WAITING, Timeout=30)
        client.put_function_concurrency(FunctionName="reserving", ReservedConcurrentExecutions=2)
        with pytest.raises(ClientError, match="below its minimum value"):
            client.put_function_concurrency(FunctionName="common", ReservedConcurrentExecutions=1)
        with ThreadPoolExecutor() as pool:
            running = [pool.submit(invoke, client, "common", Payload=event)]
            gate.wait_for(1)
            with pytest.raises(ClientError) as refused:
                client.invoke(FunctionName="common", Payload=event)
            assert refused.value.response["Reason"] == "ConcurrentInvocationLimitExceeded"
            running += [pool.submit(invoke, client, "reserving", Payload=event) for _ in range(2)]
            gate.wait_for(3)
            with pytest.raises(ClientError) as refused:
                client.invoke(FunctionName="reserving", Payload=event)
            assert refused.value.response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
            client.put_function_concurrency(FunctionName="reserving", ReservedConcurrentExecutions=0)
            gate.open()
            assert [call.result(20) for call in running] == ["done"] * 3  # a lower limit ends nothing that runs
        assert invoke(client, "common", Payload=event) == "done"


def test_the_context_and_the_variables_name_the_log_group_that_the_function_was_given(client: Any) -> None:
    text = (
        "import os\ndef handler(event, context):\n"
        "    return [context.log_group_name, os.environ['AWS_LAMBDA_LOG_GROUP_NAME']]\n"
    )
    deploy(client, "own", text, LoggingConfig={"LogGroup": "/orders/all"})
    deploy(client, "usual", text)
    assert invoke(client, "own") == ["/orders/all"] * 2
    assert invoke(client, "usual") == ["/aws/lambda/usual"] * 2


def test_the_levels_of_a_function_s_logging_act_and_it_is_told_of_them(client: Any) -> None:
    text = (
        "import logging, os\ndef handler(event, context):\n"
        "    print('plain')\n    logging.warning('careful')\n    logging.error('broken')\n"
        "    return [os.environ.get('AWS_LAMBDA_LOG_FORMAT'), os.environ.get('AWS_LAMBDA_LOG_LEVEL')]\n"
    )
    levels = {"ApplicationLogLevel": "ERROR", "SystemLogLevel": "WARN"}
    deploy(client, "quiet", text, LoggingConfig={"LogFormat": "JSON", **levels})
    deploy(client, "usual", text)

    def said(name: str) -> tuple[object, str]:
        answer = client.invoke(FunctionName=name, LogType="Tail")
        return json.loads(answer["Payload"].read()), base64.b64decode(answer["LogResult"]).decode()

    answer, log = said("quiet")
    assert answer == ["JSON", "ERROR"]
    assert [json.loads(line)["message"] for line in log.splitlines()] == ["broken"]
    answer, log = said("usual")
    assert answer == ["Text", None]
    assert all(word in log for word in ("START", "plain", "careful", "broken", "REPORT"))
