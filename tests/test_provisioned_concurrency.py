"""Provisioned concurrency on a real host: environments are there before they are needed, and the figures are true."""

from __future__ import annotations

import base64
import json
import math
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from serverfull.testing.clients import lambda_client
from serverfull.testing.deployments import create, wait_until_ready, zipped
from serverfull.testing.process import HostProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE = 20.0
"""Seconds until a test gives up waiting."""

CODE = """
import os, time
print("loading")
HOW = os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]
CALLS = [0]
def handler(event, context):
    CALLS[0] += 1
    time.sleep(event.get("sleep", 0))
    return {"how": HOW, "pid": os.getpid(), "calls": CALLS[0]}
"""


def deploy(client: Any, text: str = CODE, **members: Any) -> None:
    create(client, "f", {"app.py": text}, **{"Timeout": 10, "Publish": True, **members})


def provision(client: Any, count: int, qualifier: str = "1") -> dict[str, Any]:
    return client.put_provisioned_concurrency_config(
        FunctionName="f", Qualifier=qualifier, ProvisionedConcurrentExecutions=count
    )


def until(client: Any, what: Callable[[dict[str, Any]], bool], qualifier: str = "1") -> dict[str, Any]:
    """Ask until the configuration is like that."""
    deadline = time.monotonic() + DEADLINE
    while True:
        got = client.get_provisioned_concurrency_config(FunctionName="f", Qualifier=qualifier)
        if what(got):
            return got
        assert time.monotonic() < deadline, got
        time.sleep(0.02)


def ready(client: Any, count: int, qualifier: str = "1") -> None:
    got = until(client, lambda got: got["Status"] != "IN_PROGRESS", qualifier)
    assert (got["Status"], got.get("StatusReason")) == ("READY", None)
    assert figures(got) == (count, count, count)


def figures(got: dict[str, Any]) -> tuple[int, int, int]:
    members = ("Requested", "Available", "Allocated")
    return tuple(got[f"{member}ProvisionedConcurrentExecutions"] for member in members)  # type: ignore[return-value]


def invoke(client: Any, event: Any = None, qualifier: str = "1") -> Any:
    answer = client.invoke(FunctionName="f", Qualifier=qualifier, Payload=json.dumps(event or {}))
    return json.loads(answer["Payload"].read())


def at_once(client: Any, calls: int) -> list[Any]:
    with ThreadPoolExecutor(calls) as threads:
        return list(threads.map(lambda _: invoke(client, {"sleep": 1}), range(calls)))


def gone(pid: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    folder = tmp_path_factory.mktemp("host")
    with HostProcess.start(None, "--state", str(folder / "state"), cwd=folder) as process:
        yield process


@pytest.fixture
def client(shared: HostProcess, boto: Callable[..., Any], account: str) -> Iterator[Any]:
    client = boto(shared, access_key=account, region="eu-west-1")
    yield client
    client.delete_function(FunctionName="f")  # what is kept ready for it would stay


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostProcess]:
    """Give one whose figures are of one test."""
    with HostProcess.start(None, "--state", "memory", cwd=tmp_path) as process:
        yield process


def test_environments_are_ready_before_the_first_call_and_more_calls_get_others(client: Any) -> None:
    deploy(client)
    put = provision(client, 2)
    assert (put["Status"], figures(put)) == ("IN_PROGRESS", (2, 0, 0))
    ready(client, 2)
    first = client.invoke(FunctionName="f", Qualifier="1", LogType="Tail", Payload="{}")
    assert json.loads(first["Payload"].read())["how"] == "provisioned-concurrency"
    hows = sorted(answer["how"] for answer in at_once(client, 3))
    assert hows == ["on-demand", "provisioned-concurrency", "provisioned-concurrency"]


def reported(client: Any) -> tuple[float, int, float | None]:
    """Make a call; give what its REPORT line says: duration, what is billed of it, and how long the code had loaded."""
    answer = client.invoke(FunctionName="f", Qualifier="1", LogType="Tail", Payload="{}")
    line = base64.b64decode(answer["LogResult"]).decode().splitlines()[-1]
    said = dict(re.findall(r"([A-Z][A-Za-z ]+): ([0-9.]+) ms", line))
    init = said.get("Init Duration")
    return float(said["Duration"]), int(said["Billed Duration"]), None if init is None else float(init)


def test_the_first_report_says_how_long_the_code_had_loaded_and_bills_nothing_of_it(client: Any) -> None:
    deploy(client, f"import time\ntime.sleep(1.5)\n{CODE}")
    provision(client, 1)
    ready(client, 1)
    duration, billed, init = reported(client)
    assert init is not None
    assert init >= 1500
    assert (billed, duration < 1500) == (math.ceil(duration), True)
    assert reported(client)[2] is None


def test_one_that_dies_while_idle_is_replaced_before_the_next_call(client: Any) -> None:
    deploy(client, "import time\ntime.sleep(1)\n" + CODE)
    provision(client, 1)
    ready(client, 1)
    before = invoke(client)["pid"]
    os.kill(before, signal.SIGKILL)
    assert figures(until(client, lambda got: got["Status"] == "IN_PROGRESS")) == (1, 0, 0)
    ready(client, 1)
    after = invoke(client)
    assert (after["how"], after["calls"]) == ("provisioned-concurrency", 1)
    assert after["pid"] != before


def test_code_that_ends_while_it_is_loaded_fails_with_a_reason_that_names_no_call(client: Any) -> None:
    deploy(client, "import os\nos._exit(7)\n")
    provision(client, 1)
    failed = until(client, lambda got: got["Status"] == "FAILED")
    assert failed["StatusReason"] == (
        "FUNCTION_ERROR_INIT_FAILURE: Runtime.ExitError: Error: Runtime exited with error: exit status 7"
    )


def test_code_that_cannot_be_loaded_fails_with_its_reason_and_heals_with_the_next_version(client: Any) -> None:
    deploy(client, "import nothing_of_that_name\ndef handler(event, context): pass\n")
    provision(client, 2)
    failed = until(client, lambda got: got["Status"] == "FAILED")
    assert figures(failed) == (2, 0, 0)
    assert failed["StatusReason"] == (
        "FUNCTION_ERROR_INIT_FAILURE: Runtime.ImportModuleError: Unable to import module 'app': "
        "No module named 'nothing_of_that_name'"
    )
    client.create_alias(FunctionName="f", Name="live", FunctionVersion="1")
    client.delete_provisioned_concurrency_config(FunctionName="f", Qualifier="1")
    provision(client, 1, "live")
    until(client, lambda got: got["Status"] == "FAILED", "live")
    client.update_function_code(FunctionName="f", ZipFile=zipped({"app.py": CODE}), Publish=True)
    wait_until_ready(client, "f")
    client.update_alias(FunctionName="f", Name="live", FunctionVersion="2")
    ready(client, 1, "live")
    assert invoke(client, qualifier="live")["how"] == "provisioned-concurrency"


def test_deleting_gives_them_back(client: Any) -> None:
    deploy(client)
    provision(client, 1)
    ready(client, 1)
    pid = invoke(client)["pid"]
    client.delete_provisioned_concurrency_config(FunctionName="f", Qualifier="1")
    gone(pid)
    assert invoke(client)["how"] == "on-demand"


def test_a_host_that_starts_again_makes_them_again(tmp_path: Path) -> None:
    for start in range(2):
        with HostProcess.start(None, "--state", str(tmp_path / "state"), cwd=tmp_path) as process:
            client = lambda_client(process.url, region="eu-west-1")
            if not start:
                deploy(client)
                provision(client, 2)
            ready(client, 2)
            assert invoke(client)["how"] == "provisioned-concurrency"


def test_what_code_writes_while_it_is_loaded_early_is_in_the_log_of_its_first_call(client: Any) -> None:
    deploy(client)
    provision(client, 1)
    ready(client, 1)
    tails = [
        base64.b64decode(client.invoke(FunctionName="f", Qualifier="1", LogType="Tail", Payload="{}")["LogResult"])
        for _ in range(2)
    ]
    assert [b"loading" in tail for tail in tails] == [True, False]


def test_in_process_execution_says_that_it_keeps_nothing_ready(client: Any) -> None:
    text = CODE.replace('os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]', '"-"')
    deploy(client, text, Tags={"serverfull:execution": "inprocess"})
    provision(client, 1)
    failed = until(client, lambda got: got["Status"] == "FAILED")
    assert "own process" in failed["StatusReason"]
    assert invoke(client)["how"] == "-"


def test_an_account_lends_others_no_more_than_is_not_provisioned(tmp_path: Path) -> None:
    limits = {"SERVERFULL_LIMITS__ACCOUNT_CONCURRENCY": "3", "SERVERFULL_LIMITS__MINIMUM_UNRESERVED": "1"}
    with HostProcess.start(None, "--state", str(tmp_path / "state"), env=limits, cwd=tmp_path) as process:
        client = lambda_client(process.url, region="eu-west-1")
        deploy(client)
        create(client, "other", {"app.py": CODE}, Timeout=10)
        provision(client, 2)
        ready(client, 2)
        with ThreadPoolExecutor(2) as threads:
            event = json.dumps({"sleep": 2})
            calls = [threads.submit(client.invoke, FunctionName="other", Payload=event) for _ in range(2)]
            assert sum(isinstance(call.exception(), ClientError) for call in calls) == 1
        assert {answer["how"] for answer in at_once(client, 2)} == {"provisioned-concurrency"}
        assert len(at_once(client, 3)) == 3  # the third one runs in the pool that is everybody's


def test_a_repointed_alias_takes_its_environments_along(client: Any) -> None:
    deploy(client)
    client.create_alias(FunctionName="f", Name="live", FunctionVersion="1")
    provision(client, 1, "live")
    ready(client, 1, "live")
    first = invoke(client, qualifier="live")
    client.update_function_code(FunctionName="f", ZipFile=zipped({"app.py": CODE + "# new\n"}), Publish=True)
    wait_until_ready(client, "f")
    client.update_alias(FunctionName="f", Name="live", FunctionVersion="2")
    ready(client, 1, "live")
    second = invoke(client, qualifier="live")
    assert (first["how"], second["how"]) == ("provisioned-concurrency", "provisioned-concurrency")
    assert second["calls"] == 1
    gone(first["pid"])


def figure(host: HostProcess, name: str) -> float | None:
    lines = host.request("GET", "/metrics").body.decode().splitlines()
    found = [line for line in lines if line.startswith(f'serverfull_{name}{{function="f"}} ')]
    return float(found[0].rpartition(" ")[2]) if found else None


def test_the_figures_tell_how_much_of_it_is_used(host: HostProcess, boto: Callable[..., Any]) -> None:
    client = boto(host)
    deploy(client)
    provision(client, 2)
    ready(client, 2)
    assert figure(host, "provisioned_environments") == 2
    assert figure(host, "provisioned_concurrency_utilization") == 0
    with ThreadPoolExecutor(1) as threads:
        busy = threads.submit(invoke, client, {"sleep": 3})
        deadline = time.monotonic() + DEADLINE
        while figure(host, "provisioned_concurrency_utilization") != 0.5:
            assert time.monotonic() < deadline
        assert figure(host, "provisioned_concurrent_executions") == 1
        busy.result()
    at_once(client, 3)
    assert figure(host, "provisioned_concurrency_invocations_total") == 3
    assert figure(host, "provisioned_concurrency_spillover_invocations_total") == 1
    assert figure(host, "provisioned_concurrent_executions") == 0
    client.delete_provisioned_concurrency_config(FunctionName="f", Qualifier="1")
    deadline = time.monotonic() + DEADLINE
    while figure(host, "provisioned_environments") != 0:
        assert time.monotonic() < deadline
    assert figure(host, "provisioned_concurrency_utilization") is None
    invoke(client)
    assert figure(host, "provisioned_concurrency_spillover_invocations_total") == 1


def test_a_call_that_takes_too_long_is_counted_as_a_timeout(host: HostProcess, boto: Callable[..., Any]) -> None:
    client = boto(host)
    deploy(client, Timeout=1)
    invoke(client, {"sleep": 30})
    assert figure(host, "timeouts_total") == 1


def test_where_each_call_has_its_own_environment_provisioned_ones_are_no_exception(tmp_path: Path) -> None:
    with HostProcess.start(
        None, "--state", "memory", cwd=tmp_path, env={"SERVERFULL_EXECUTION__EPHEMERAL": "1"}
    ) as host:
        client = lambda_client(host.url, region="eu-west-1")
        deploy(client)
        provision(client, 1)
        for _ in range(2):
            ready(client, 1)
            assert (answer := invoke(client))["calls"] == 1
            assert answer["how"] == "provisioned-concurrency"
