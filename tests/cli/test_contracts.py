"""``serverfull contracts``, and ``serverfull serve --mock`` as a process of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from serverfull.testing.process import HostProcess

pytest_plugins = ["serverfull.testing.fixtures"]

Run = Callable[..., Any]
Serve = Callable[..., HostProcess]

APP = """
    import sys
    from dataclasses import dataclass
    from serverfull import Function

    print("imported", file=sys.stderr)

    @dataclass
    class Order:
        item: str

    @dataclass
    class Receipt:
        number: int
        total: str

    class Rejected(Exception):
        '''Not today.'''

    def order(event: Order) -> Receipt:
        print("the handler ran")
        raise SystemExit(1)

    functions = {"order": Function(order, errors=[Rejected]), "hello": lambda: "hello"}
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    path = tmp_path / "app_with_contracts.py"
    path.write_text(dedent(APP))
    return path


def test_the_contracts_are_printed_as_json(run: Run, app: Path) -> None:
    done = run("contracts", app.name)
    assert done.returncode == 0
    documents = json.loads(done.stdout)
    assert list(documents) == ["hello", "order"]
    assert documents["order"]["event"]["required"] == ["item"]
    assert set(documents["order"]["result"]["properties"]) == {"number", "total"}
    assert documents["order"]["errors"] == [{"errorType": "Rejected", "message": "Not today."}]
    assert run("contracts", app.name, "--output", "json").stdout == done.stdout


def test_the_contracts_are_printed_as_a_table(run: Run, app: Path) -> None:
    lines = run("contracts", app.name, "--output", "table").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["NAME", "EVENT", "RESULT", "ERRORS"],
        ["hello", "anything", "anything"],
        ["order", "Order", "Receipt", "Rejected"],
    ]


def test_a_file_that_was_written_today_has_no_breaking_changes(run: Run, app: Path, tmp_path: Path) -> None:
    done = run("contracts", app.name, "--write", "contracts.json")
    assert (done.returncode, done.stdout) == (0, "")
    assert json.loads((tmp_path / "contracts.json").read_text()) == json.loads(run("contracts", app.name).stdout)
    done = run("contracts", app.name, "--check", "contracts.json")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (("    total: str\n", ""), "order: result.total"),
        (("    total: str\n", "    total: int\n"), "order: result.total"),
        (("    item: str\n", "    item: str\n    size: int\n"), "order: event.size"),
        (("errors=[Rejected]", "errors=[]"), "order: errors.Rejected"),
        ((', "hello": lambda: "hello"', ""), "hello: function"),
    ],
    ids=["a removed field", "a retyped field", "a new required field", "a removed error", "a removed function"],
)
def test_breaking_changes_are_named_and_the_exit_code_is_1(
    run: Run, app: Path, tmp_path: Path, change: tuple[str, str], place: str
) -> None:
    assert run("contracts", app.name, "--write", "contracts.json").returncode == 0
    text = app.read_text()
    assert change[0] in text
    changed = tmp_path / f"changed_app_{abs(hash(change))}.py"
    changed.write_text(text.replace(*change))
    done = run("contracts", changed.name, "--check", "contracts.json")
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    assert line.startswith(place)
    assert done.stderr.endswith("Error: 1 change breaks those who call these functions as contracts.json says\n")


@pytest.mark.parametrize("change", [("    number: int\n", "    number: int\n    extra: int = 0\n"), ("", "")])
def test_changes_that_break_nobody_are_not_named(run: Run, app: Path, tmp_path: Path, change: tuple[str, str]) -> None:
    run("contracts", app.name, "--write", "contracts.json")
    changed = tmp_path / "harmless_app.py"
    changed.write_text(app.read_text().replace("    total: str\n", "    total: str\n    extra: int = 0\n"))
    done = run("contracts", changed.name, "--check", "contracts.json")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "the contracts cannot be read from contracts.json: No such file or directory"),
        ("{", "contracts.json is not JSON"),
        ("[]", "contracts.json has no contracts"),
        ('{"order": 3}', "contracts.json does not hold contracts"),
    ],
)
def test_a_file_that_holds_no_contracts_is_wrong_usage(
    run: Run, app: Path, tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "contracts.json").write_text(content)
    done = run("contracts", app.name, "--check", "contracts.json")
    assert done.returncode == 2
    assert f"Error: {message}" in done.stderr


def test_a_target_that_is_not_there_is_wrong_usage(run: Run) -> None:
    done = run("contracts", "nope.py")
    assert (done.returncode, done.stderr) == (2, "Error: there is no file nope.py\n")


# ---------------------------------------------------------------------------------------------- serverfull serve --mock


def test_a_host_in_mock_mode_answers_and_runs_nothing(serve: Serve, app: Path) -> None:
    host = serve(app, "--mock")
    assert "(mock mode: no handler runs)" in host.wait_for_stdout("serverfull ready")
    answer = host.invoke("order", b'{"item": "tea"}')
    assert (answer.status, answer.json()) == (200, {"number": 0, "total": ""})
    answer = host.invoke("order", b"{}")
    assert answer.json()["errorType"] == "ValidationError"
    answer = host.invoke("order", headers={"X-Amz-Invocation-Type": "Error", "X-Error-Type": "REJECTED"})
    assert answer.json()["errorType"] == "Rejected"
    assert host.request("GET", "/_serverfull/info").json()["mode"] == "mock"
    assert host.stop() == 0
    assert not any("the handler ran" in line for line in host.stdout_lines())


@pytest.mark.parametrize("workers", [1, 2])
def test_random_answers_are_repeatable_and_the_settings_say_the_same_as_the_flags(
    serve: Serve, app: Path, workers: int
) -> None:
    number = {"SERVERFULL_SERVER__WORKERS": str(workers)}
    flags = serve(app, "--mock", "--mock-answers", "random", "--mock-seed", "5", env=number)
    variables = {"SERVERFULL_MOCK__ENABLED": "true", "SERVERFULL_MOCK__ANSWERS": "random", "SERVERFULL_MOCK__SEED": "5"}
    environment = serve(app, env={**number, **variables})
    assert "(mock mode: no handler runs)" in environment.wait_for_stdout("serverfull ready")
    answers = [host.invoke("order", b'{"item": "tea"}').json() for host in (flags, environment)]
    assert answers[0] == answers[1]
    assert set(answers[0]) == {"number", "total"}


def test_static_answers_are_served_and_what_is_missing_is_said_at_start(
    serve: Serve, app: Path, tmp_path: Path
) -> None:
    (tmp_path / "answers.json").write_text('{"order": {"number": 7, "total": "9.90"}}')
    host = serve(app, "--mock", "--mock-answers", "answers.json")
    assert host.invoke("order", b'{"item": "tea"}').json() == {"number": 7, "total": "9.90"}
    host.wait_for_stderr("answers.json has no answer for hello: zero values are answered")


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ('{"order": {"number": "x", "total": ""}}', "the answer does not fit the result of 'order'"),
        ("{", "answers.json is not JSON"),
        (None, "the answers of mock mode cannot be read from answers.json"),
    ],
)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_answers_that_cannot_be_used_end_the_start_with_one_line(
    run_process: Callable[..., Any], app: Path, tmp_path: Path, answers: str | None, message: str, workers: str
) -> None:
    if answers is not None:
        (tmp_path / "answers.json").write_text(answers)
    done = run_process(app.name, "--port", "0", "--mock", "--mock-answers", "answers.json", "--workers", workers)
    assert done.returncode == 2
    assert f"Error: {message}" in done.stderr or f"answers.json, 'order': {message}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def run_process(tmp_path: Path, environ: dict[str, str]) -> Callable[..., Any]:
    import subprocess
    import sys

    def run(*arguments: str) -> Any:
        command = [sys.executable, "-m", "serverfull", "serve", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=40)

    return run
