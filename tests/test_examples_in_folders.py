"""The examples that are more than one file: a consumer's contract test, and what serverfull (Go) shows, in Python."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from serverfull.testing.process import HostProcess, plain_environment
from serverfull.testing.runtime_api import NativeLambda

ROOT = Path(__file__).parents[1]
CONTRACT_TESTING = ROOT / "examples/contract-testing"
FROM_GO = ROOT / "examples/migrating-from-go"
GUIDE = ROOT / "docs/migrating-from-serverfull-go.md"
GO_ADDRESS = {"SERVERFULL_RUNTIME_HTTPSERVER_ADDRESS": "127.0.0.1:0"}


# ------------------------------------------------------------------------------------------------ contract testing


def contract_test(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest as the consumer does. The plugin need not be installed here, and nothing is left in the folder."""
    plugins = ["-p", "serverfull.testing.pytest_plugin", "-p", "no:cacheprovider"]
    apart = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [Path(sys.executable).parent / "pytest", *plugins, "-W", "error", *arguments],
        cwd=folder,
        env=plain_environment() | apart,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.fixture
def consumer(tmp_path) -> Path:
    return Path(shutil.copytree(CONTRACT_TESTING, tmp_path / "consumer", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.mark.parametrize("where", ["in the checkout", "elsewhere"])
def test_the_consumers_contract_test_passes(consumer, where: str) -> None:
    done = contract_test(CONTRACT_TESTING if where == "in the checkout" else consumer)
    assert "6 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "old", "new", "failing"),
    [
        ("app.py", "item: str = Field", "article: str = Field", "test_an_order_is_one_that_the_provider_takes"),
        ("app.py", "    number: int", "    receipt: int", "test_an_order_is_one_that_the_provider_takes"),
        ("app.py", "errors=[OutOfStock]", "", "test_an_error_that_the_provider_declares_is_understood"),
        ("shop.py", '"quantity": quantity', '"quantity": -quantity', "test_every_receipt_can_be_read"),
    ],
)
def test_the_contract_test_fails_when_one_side_changes(consumer, file: str, old: str, new: str, failing: str) -> None:
    text = (consumer / file).read_text()
    assert old in text
    (consumer / file).write_text(text.replace(old, new))
    done = contract_test(consumer, f"test_shop.py::{failing}")
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(rf"FAILED \S+::{failing}", done.stdout)


# -------------------------------------------------------------------------------------- the examples of serverfull (Go)


@pytest.fixture
def program():
    """Start an example as a program; it listens where the variable of serverfull (Go) says."""
    hosts: list[HostProcess] = []

    def start(name: str, **env: str) -> HostProcess:
        host = HostProcess([sys.executable, str(FROM_GO / name)], plain_environment() | GO_ADDRESS | env, FROM_GO)
        hosts.append(host)
        host._wait_until_ready(20)
        return host

    yield start
    for host in hosts:
        host.stop()


@pytest.fixture(autouse=True)
def _importable_from_a_checkout(monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")


def test_the_quick_start_says_hello(program) -> None:
    assert program("hello.py").invoke("hello").json() == "Hello ƛ!"


def test_the_switch_for_mock_mode_changes_who_answers(program) -> None:
    assert program("mock_mode.py").invoke("hello").json() == "Hello ƛ!"
    assert program("mock_mode.py", MOCK_MODE="1").invoke("hello").json() == ""


def test_the_switch_for_lambda_mode_changes_where_invocations_come_from(program) -> None:
    assert program("lambda_mode.py").invoke("myFunctionName").json() == "Hello ƛ!"
    command = [sys.executable, FROM_GO / "lambda_mode.py"]
    with NativeLambda(command, env={"LAMBDA_MODE": "1"}) as native:
        assert native.invoke().json() == "Hello ƛ!"
    with NativeLambda(command, env={"LAMBDA_MODE": "1", "MOCK_MODE": "1"}) as native:
        assert native.invoke().json() == ""


def test_the_router_has_a_health_check_a_middleware_and_a_route_of_its_own(program) -> None:
    host = program("router.py")
    assert host.request("GET", "/alive").status == 200
    assert host.request("GET", "/healthcheck").status == 404
    version = host.request("GET", "/version")
    assert (version.json(), version.headers["x-stamp"]) == ({"version": 7}, "serverfull")
    hello = host.invoke("hello")
    assert (hello.json(), hello.headers["x-stamp"]) == ("Hello ƛ!", "serverfull")


def test_declared_errors_come_on_demand_in_mock_mode(program) -> None:
    def ask(host: HostProcess, error: str):
        return host.invoke("hello", b"{}", {"X-Amz-Invocation-Type": "Error", "X-Error-Type": error})

    mock = program("errors.py", MOCK_MODE="1")
    assert mock.invoke("hello").json() == ""
    answer = ask(mock, "Forbidden")
    assert (answer.status, answer.headers["x-amz-function-error"]) == (200, "Unhandled")
    assert answer.json()["errorType"] == "Forbidden"
    assert ask(mock, "TooLate").json()["errorMessage"] == "after ten"
    assert ask(mock, "Other").status == 404
    real = program("errors.py")
    assert ask(real, "Forbidden").status == 400
    assert real.invoke("hello").json()["errorMessage"] == "come back tomorrow"


def test_a_fetcher_of_ones_own_finds_functions_and_says_which_it_has_not(program, tmp_path) -> None:
    (tmp_path / "greet.py").write_text("def handler(event):\n    return 'Hello ' + event['name']\n")
    host = program("fetcher.py", FUNCTIONS=str(tmp_path))
    assert host.invoke("greet", b'{"name": "Ada"}').json() == "Hello Ada"
    assert host.invoke("other").headers["x-amzn-errortype"] == "ResourceNotFoundException"
    (tmp_path / "other.py").write_text("def handler():\n    return 'found'\n")
    assert host.invoke("other").json() == "found"


def test_logger_and_figures_belong_to_the_call(program) -> None:
    host = program("context.py")
    assert host.invoke("order", json.dumps({"item": "tea"}).encode()).json() == "one tea"
    host.wait_for_stdout("sold")
    assert re.search(rb'orders\S*\{[^}]*item="tea"[^}]*\} 1', host.request("GET", "/metrics").body)


def test_every_example_is_in_the_table_of_its_folder() -> None:
    for folder in (CONTRACT_TESTING, FROM_GO):
        text = (folder / "README.md").read_text()
        for path in folder.glob("*.py"):
            assert f"[{path.name}]({path.name})" in text


# ------------------------------------------------------------------------------------------------------ the guide

GO_NAMES = frozenset(
    """
LambdaStartFn LoggerFromContext StatFromContext
NewRouter Start StartHTTP StartHTTPMock StartLambda StartLambdaMock
Fetcher Fetcher.Fetch
Function Function.Source Function.Errors NewFunction NewFunctionWithErrors
Invoke Invoke.LogFn Invoke.StatFn Invoke.URLParamFn Invoke.Fetcher Invoke.MockMode Invoke.ServeHTTP
LambdaFunction LambdaFunction.Errors LambdaFunction.Source
LogFn Logger
MockingFetcher MockingFetcher.Fetcher MockingFetcher.Fetch
NotFoundError NotFoundError.ID NotFoundError.Error
RouterConfig RouterConfig.HealthCheck RouterConfig.Fetcher RouterConfig.LogFn RouterConfig.StatFn
RouterConfig.URLParamFn RouterConfig.MockMode
Stat StatFn
StaticFetcher StaticFetcher.Functions StaticFetcher.Fetch
URLParamFn
""".split()  # noqa: SIM905 - a list of fifty lines reads worse
)
"""What serverfull (Go) 0.6.1 exports, fields and methods included."""


def test_the_guide_has_every_exported_name_of_serverfull_go() -> None:
    table = GUIDE.read_text().split("## Every exported name")[1].split("\n## ")[0]
    first_cells = re.findall(r"^\| (.*?) \|", table, flags=re.MULTILINE)
    named = {name for cell in first_cells for name in re.findall(r"`([A-Za-z.]+)[^`]*`", cell)}
    assert named == GO_NAMES


def test_what_the_guide_maps_names_to_is_there() -> None:
    import serverfull

    table = GUIDE.read_text().split("## Every exported name")[1].split("\n## ")[0]
    cells = re.findall(r"^\| .*? \| (.*) \|$", table, flags=re.MULTILINE)
    used = set(re.findall(r"`(?:serverfull\.)?(\w+)\(", "\n".join(cells)))
    assert {"serve", "serve_mock", "start_lambda", "create_app", "Function", "MockingFetcher"} <= used
    assert used <= set(serverfull.__all__)
