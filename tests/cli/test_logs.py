"""``serverfull logs`` and ``GET /_serverfull/logs``, against real hosts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serverfull.testing.process import HostDidNotStart, HostProcess

Run = Callable[..., Any]

APP = r"""
def hello(event):
    print("hello", event)
    print("\x1b[2Jnext line")

def other(event):
    print("other", event)

def fails(event):
    raise ValueError("no good")

functions = {"hello": hello, "other": other, "fails": fails}
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostProcess]:
    (tmp_path / "app.py").write_text(APP)
    with HostProcess.start("app.py", cwd=tmp_path) as started:
        yield started


def test_logs_prints_what_a_function_wrote_last_with_its_times(run: Run, host: HostProcess) -> None:
    for number in (b"1", b"2"):
        host.invoke("hello", number)
    host.invoke("other", b"3")
    lines = run("logs", "hello", "--endpoint", host.url).stdout.splitlines()
    texts = [line.partition("  ")[2] for line in lines]
    assert [text for text in texts if text[0] in "h\\"] == [
        "hello 1",
        "\\x1b[2Jnext line",
        "hello 2",
        "\\x1b[2Jnext line",
    ]
    assert [text.split()[0] for text in texts if text.isascii() and text[0].isupper()] == ["START", "END", "REPORT"] * 2
    assert all(len(line.partition("  ")[0]) == len("2026-01-31T12:00:00.000Z") for line in lines)


def test_a_traceback_has_its_lines(run: Run, host: HostProcess) -> None:
    host.invoke("fails", b"1")
    lines = run("logs", "fails", "--endpoint", host.url).stdout.splitlines()
    texts = [line.partition("  ")[2] for line in lines]
    at = texts.index("[ERROR] ValueError: no good")
    assert texts[at + 1] == "Traceback (most recent call last):"
    assert 'raise ValueError("no good")' in texts[at + 3]
    assert "\n".join(texts[at : at + 4]) in run("invoke", "fails", "1", "--tail", "--endpoint", host.url).stderr


def test_json_gives_the_records_as_the_host_has_them(run: Run, host: HostProcess) -> None:
    host.invoke("hello", b"1")
    records = [
        json.loads(line)
        for line in run("logs", "hello", "--output", "json", "--endpoint", host.url).stdout.splitlines()
    ]
    assert {record["function"] for record in records} == {"hello"}
    assert any("\x1b[2Jnext line" in record["message"] for record in records)


def test_since_leaves_out_what_is_older(run: Run, host: HostProcess) -> None:
    host.invoke("hello", b"1")
    assert "hello 1" in run("logs", "hello", "--since", "1h", "--endpoint", host.url).stdout
    run("wait", "--endpoint", host.url)
    assert run("logs", "hello", "--since", "0.001", "--endpoint", host.url).stdout == ""
    answer = host.request("GET", "/_serverfull/logs/hello?since=soon")
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "InvalidParameterValueException")


def test_a_function_that_is_not_there_has_no_log(run: Run, host: HostProcess) -> None:
    done = run("logs", "nobody", "--endpoint", host.url)
    assert (done.returncode, "Function not found" in done.stderr) == (1, True)


def test_logs_are_gated_as_everything_else(host: HostProcess) -> None:
    answer = host.request("GET", "/_serverfull/logs/hello", headers={"Origin": "http://evil.example"})
    assert answer.status == 403


def test_a_host_whose_functions_log_goes_nowhere_says_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    env = {"SERVERFULL_LOGGING__FUNCTIONS": "NULL"}
    with HostProcess.start("app.py", cwd=tmp_path, env=env) as host:
        done = run("logs", "hello", "--endpoint", host.url)
    assert (done.returncode, "logging.functions is NULL" in done.stderr) == (1, True)


@pytest.mark.parametrize("flag", ["--follow", "-f"])
def test_follow_goes_on_until_ctrl_c(host: HostProcess, environ: dict[str, str], tmp_path: Path, flag: str) -> None:
    host.invoke("hello", b'"before"')
    command = [sys.executable, "-m", "serverfull", "logs", "hello", flag, "--endpoint", host.url]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "hello before" in "".join(process.stdout.readline() for _ in range(3))
        host.invoke("hello", b'"while"')
        lines = iter(process.stdout.readline, "")
        assert any("hello while" in line for line in lines)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in errors) == (130, False)


def test_a_host_that_ends_ends_those_who_follow_and_does_not_wait_for_them(
    host: HostProcess, environ: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "serverfull", "logs", "hello", "--follow", "--endpoint", host.url]
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        host.invoke("hello", b"1")
        assert process.stdout.readline()
        assert host.stop(timeout=15) == 0
        process.communicate(timeout=15)
    assert process.returncode == 0
    assert not [line for line in host.stderr_lines() if "lost" in line or "error" in line.lower()]


FILES = {"SERVERFULL_LOGGING__FILES": "logs"}


def texts(stdout: str) -> list[str]:
    return [line.partition("  ")[2] for line in stdout.splitlines() if "hello" in line]


def test_files_outlive_their_host_and_are_read_with_and_without_one(run: Run, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    for number in (b"1", b"2"):
        with HostProcess.start("app.py", cwd=tmp_path, env=FILES) as host:
            host.invoke("hello", number)
            assert texts(run("logs", "hello", "--endpoint", host.url).stdout)[-1] == f"hello {number.decode()}"
    with HostProcess.start("app.py", cwd=tmp_path, env=FILES) as host:
        request_id = host.invoke("hello", b"3").headers["x-amzn-requestid"]
        assert texts(run("logs", "hello", "--endpoint", host.url).stdout) == ["hello 1", "hello 2", "hello 3"]
        of_one = run("logs", "hello", "--request-id", request_id, "--endpoint", host.url).stdout
        assert texts(of_one) == ["hello 3"]
        assert "REPORT" in of_one
    assert texts(run("logs", "hello", "--files", "logs").stdout) == ["hello 1", "hello 2", "hello 3"]
    assert texts(run("logs", "hello", "--files", "logs", "--request-id", request_id).stdout) == ["hello 3"]
    assert run("logs", "hello", "--files", "logs", "--request-id", "nobody's").stdout == ""
    assert run("logs", "hello", "--files", "logs", "--since", "1h").stdout.count("hello ") == 3
    assert run("logs", "hello", "--files", "logs", "--since", "0.001").stdout == ""


def test_without_files_the_invocation_is_chosen_from_memory(run: Run, host: HostProcess) -> None:
    first = host.invoke("hello", b"1").headers["x-amzn-requestid"]
    host.invoke("hello", b"2")
    assert texts(run("logs", "hello", "--request-id", first, "--endpoint", host.url).stdout) == ["hello 1"]


def test_a_function_without_files_is_said_to_have_none(run: Run, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    done = run("logs", "nobody", "--files", "logs")
    assert (done.returncode, "has no log of a function nobody" in done.stderr) == (1, True)
    done = run("logs", "../x", "--files", "logs")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert run("logs", "hello", "--files", "nowhere").returncode == 2


def test_several_workers_share_the_files_and_each_shows_them_all(run: Run, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with HostProcess.start("app.py", "--workers", "2", cwd=tmp_path, env=FILES) as host:
        for number in range(20):
            host.invoke("hello", b"%d" % number)
        deadline = time.monotonic() + 20
        while len(texts(run("logs", "hello", "--endpoint", host.url).stdout)) < 20:
            assert time.monotonic() < deadline
    assert sorted(texts(run("logs", "hello", "--files", "logs").stdout)) == sorted(f"hello {n}" for n in range(20))


@pytest.mark.parametrize("with_host", [True, False])
def test_files_are_followed_until_ctrl_c(environ: dict[str, str], tmp_path: Path, with_host: bool) -> None:
    (tmp_path / "app.py").write_text(APP)
    with HostProcess.start("app.py", cwd=tmp_path, env=FILES) as host:
        host.invoke("hello", b'"before"')
        where = ["--endpoint", host.url] if with_host else ["--files", "logs"]
        command = [sys.executable, "-m", "serverfull", "logs", "hello", "-f", *where]
        with subprocess.Popen(
            command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            assert any("hello before" in line for line in lines)
            host.invoke("hello", b'"while"')
            assert any("hello while" in line for line in lines)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        assert (process.returncode, "Traceback" in errors) == (130, False)


def test_a_folder_that_cannot_be_written_keeps_the_host_from_starting(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "logs").write_text("")
    with pytest.raises(HostDidNotStart, match=r"logging\.files: logs cannot be written to"):
        HostProcess.start("app.py", cwd=tmp_path, env=FILES)


def test_functions_of_one_name_in_two_regions_have_logs_of_their_own(run: Run, tmp_path: Path) -> None:
    with HostProcess.start(None, "--state", "memory", cwd=tmp_path, env=FILES) as host:
        for region in ("eu-west-1", "us-east-1"):
            (tmp_path / "lambda_function.py").write_text(f"def handler(event, context):\n    print('in {region}')\n")
            there = ("--region", region, "--endpoint", host.url)
            assert run("deploy", "lambda_function.py", "--name", "twice", *there).returncode == 0
            assert run("invoke", "twice", *there).stdout.strip() == "null"
        for region, other in (("eu-west-1", "us-east-1"), ("us-east-1", "eu-west-1")):
            for where in (("--endpoint", host.url), ("--files", "logs")):
                shown = run("logs", "twice", "--region", region, *where).stdout
                assert (f"in {region}" in shown, other in shown, shown.count("REPORT")) == (True, False, 1)
        both = run("logs", "twice", "--files", "logs").stdout
        arn = "arn:aws:lambda:eu-west-1:000000000000:function:twice"
        of_arn = run("logs", arn, "--files", "logs").stdout
    assert (both.count("REPORT"), of_arn.count("REPORT"), "in eu-west-1" in of_arn) == (2, 1, True)
