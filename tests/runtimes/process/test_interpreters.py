"""What runs a runtime on this machine, and on machines that are made of scripts here."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import botocore
import pytest

from serverfull.domain.runtimes import REFUSED_RUNTIMES, RUNTIMES
from serverfull.runtimes.process import interpreters
from serverfull.runtimes.process.interpreters import (
    NODE_CLIENT,
    Interpreter,
    Interpreters,
    Missing,
    node_command,
)

HOSTS = "{}.{}".format(*sys.version_info[:2])
NOT_HERE = "3.99"

Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Put a program somewhere below the test's folder, which notes in its ``.log`` that it was run."""

    def program(path: str, answer: str | None, *, name: str = "cpython", before: str = "") -> Path:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        told = json.dumps([name, answer, str(file)])
        lines = [f"echo run >> {shlex.quote(f'{file}.log')}", before]
        lines.append(f"echo {shlex.quote(told)}" if answer else "echo 'no such command' >&2; exit 127")
        file.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        file.chmod(0o755)
        return file

    return program


def runs(program: Path) -> int:
    log = Path(f"{program}.log")
    return len(log.read_text().splitlines()) if log.exists() else 0


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: object) -> None:
        self.lines.append((event, fields))


def test_the_hosts_own_python_runs_the_runtime_of_its_version() -> None:
    found = Interpreters(folders=[]).find(f"python{HOSTS}")
    assert isinstance(found, Interpreter)
    assert (found.path, found.kind, found.series, found.note) == (Path(sys.executable), "python", HOSTS, None)


@pytest.mark.parametrize("runtime", [runtime for runtime in RUNTIMES if runtime.startswith(("python", "node"))])
def test_what_is_found_here_is_what_the_runtime_names(runtime: str) -> None:
    found = Interpreters("error").find(runtime)
    if isinstance(found, Missing):
        assert re.search(r" is not on this machine(, which has [\d. and]+)?: install", found.reason)
        return
    assert found.path is not None
    told = subprocess.run([found.path, "--version"], capture_output=True, text=True, check=True, timeout=20).stdout
    assert told.split()[-1].lstrip("v") == found.version
    assert found.version.startswith(runtime.removeprefix("python").removeprefix("nodejs").removesuffix("x"))


def test_of_two_programs_the_first_on_the_path_is_taken(put: Put, tmp_path: Path) -> None:
    first, _ = put("a/python3.99", "3.99.1"), put("b/python3.99", "3.99.2")
    found = Interpreters(folders=[tmp_path / "gone", tmp_path / "a", tmp_path / "b"]).find("python3.99")
    assert isinstance(found, Interpreter)
    assert (found.path, found.version) == (first, "3.99.1")


def test_a_stand_in_that_fails_is_passed_over(put: Put, tmp_path: Path) -> None:
    put("a/python3.99", None)
    real = put("b/python3.99", "3.99.2")
    found = Interpreters("error", folders=[tmp_path / "a", tmp_path / "b"]).find("python3.99")
    assert isinstance(found, Interpreter)
    assert found.path == real


@pytest.mark.parametrize(("told", "name"), [("3.98.1", "cpython"), ("3.990.1", "cpython"), ("3.99.1", "pypy")], ids=str)
def test_a_program_that_is_not_what_its_name_says_is_passed_over(
    put: Put, tmp_path: Path, told: str, name: str
) -> None:
    put("a/python3.99", told, name=name)
    assert isinstance(Interpreters("error", folders=[tmp_path / "a"]).find("python3.99"), Missing)


@pytest.mark.parametrize("beside", ["versions", "installs/python"])
def test_the_newest_of_a_version_managers_versions_is_taken_and_not_its_stand_in(
    put: Put, tmp_path: Path, beside: str
) -> None:
    stand_in = put("manager/shims/python3.99", None)
    put(f"manager/{beside}/3.99.9/bin/python3.99", "3.99.9")
    newest = put(f"manager/{beside}/3.99.10/bin/python3.99", "3.99.10")
    found = Interpreters("error", folders=[stand_in.parent]).find("python3.99")
    assert isinstance(found, Interpreter)
    assert (found.path, runs(stand_in)) == (newest, 0)


def test_a_version_manager_that_is_not_on_the_path_is_not_looked_through(put: Put, tmp_path: Path) -> None:
    put("manager/versions/3.99.1/bin/python3.99", "3.99.1")
    assert isinstance(Interpreters("error", folders=[tmp_path / "manager/bin"]).find("python3.99"), Missing)


def test_a_node_of_a_version_manager_is_found(put: Put, tmp_path: Path) -> None:
    program = put("manager/installs/nodejs/98.1.0/bin/node", "98.1.0", name="node")
    found = Interpreters(folders=[tmp_path / "manager/shims"]).find("nodejs98.x")
    assert isinstance(found, Interpreter)
    assert (found.kind, found.path, found.version) == ("node", program, "98.1.0")


def test_debians_name_of_node_is_one_too(put: Put, tmp_path: Path) -> None:
    program = put("a/nodejs", "98.1.0", name="node")
    found = Interpreters(folders=[tmp_path / "a"]).find("nodejs98.x")
    assert isinstance(found, Interpreter)
    assert found.path == program


def test_a_python_that_is_not_here_is_replaced_by_the_hosts_or_an_error() -> None:
    used = Interpreters("use", folders=[]).find(f"python{NOT_HERE}")
    assert isinstance(used, Interpreter)
    assert (used.path, used.series) == (Path(sys.executable), HOSTS)
    assert used.note is not None
    assert used.note.startswith(f"Python 3.99 is not on this machine, the host's {used.version} is used: install")
    refused = Interpreters("error", folders=[]).find(f"python{NOT_HERE}")
    assert isinstance(refused, Missing)
    assert refused.reason.startswith("Python 3.99 is not on this machine: install it with pyenv or uv")


def test_a_node_that_is_not_here_is_replaced_by_none() -> None:
    assert isinstance(Interpreters("use", folders=[]).find("nodejs98.x"), Missing)


@pytest.mark.parametrize(
    ("release", "runtime", "advice"),
    [
        ("trixie", "python3.13", "install the system's package python3.13"),
        ("bookworm", "nodejs18.x", "install the system's package nodejs"),
        ("bookworm", "python3.13", "with pyenv or uv, and have python3.13 on the host's PATH (the system's package"),
        ("bookworm", "python3.14", "install it with pyenv or uv, and have python3.14 on the host's PATH"),
        ("", "nodejs22.x", "install it from nodejs.org or deb.nodesource.com, and have node on the host's PATH"),
    ],
)
def test_who_lacks_an_interpreter_reads_what_to_install(release: str, runtime: str, advice: str) -> None:
    if runtime == f"python{HOSTS}":
        pytest.skip("that is this host's own Python")
    missing = Interpreters("error", folders=[], release=release).find(runtime)
    assert isinstance(missing, Missing)
    assert advice in missing.reason


@pytest.mark.parametrize("runtime", ["provided.al2", "provided.al2023"])
def test_a_provided_runtime_needs_no_interpreter(runtime: str) -> None:
    found = Interpreters(folders=[]).find(runtime)
    assert isinstance(found, Interpreter)
    assert (found.kind, found.path) == ("bootstrap", None)


@pytest.mark.parametrize("runtime", ["java21", "dotnet8", "ruby3.4"])
def test_what_needs_a_container_says_so(runtime: str) -> None:
    missing = Interpreters(folders=[]).find(runtime)
    reason = f"{runtime} needs a container: its tag serverfull:execution can say 'docker', or execution.mode"
    assert missing == Missing(runtime=runtime, reason=reason)


@pytest.mark.parametrize("runtime", ["cobol74", "", "python3", "nodejs", "python3.12; rm -rf /", "../python3.12"])
def test_a_runtime_that_nobody_knows_is_missing_too(runtime: str) -> None:
    missing = Interpreters().find(runtime)
    assert isinstance(missing, Missing)
    assert missing.reason == f"{runtime!r} is no runtime that this version knows"


def test_the_list_of_runtimes_is_that_of_awss_model() -> None:
    file = Path(botocore.__file__).parent / "data/lambda/2015-03-31/service-2.json.gz"
    named = set(json.loads(gzip.decompress(file.read_bytes()))["shapes"]["Runtime"]["enum"])
    assert set(RUNTIMES) == named - REFUSED_RUNTIMES - {"custom"}
    for runtime in RUNTIMES:
        assert "is no runtime" not in getattr(Interpreters(folders=[]).find(runtime), "reason", "")


def test_a_program_is_run_once_until_it_changes(put: Put, tmp_path: Path) -> None:
    program = put("a/python3.99", "3.99.1")
    looking = Interpreters("error", folders=[tmp_path / "a"])
    found = [looking.find("python3.99") for _ in range(3)]
    assert (found[0] is found[2], runs(program)) == (True, 1)
    put("a/python3.99", "3.99.2")
    os.utime(program, (1, 1))
    changed = looking.find("python3.99")
    assert isinstance(changed, Interpreter)
    assert (changed.version, runs(program)) == ("3.99.2", 2)
    program.unlink()
    assert isinstance(looking.find("python3.99"), Missing)


def test_what_is_missing_is_looked_for_again_after_a_while(
    put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking = Interpreters("use", folders=[tmp_path / "a"])
    assert getattr(looking.find("python3.99"), "note", None) is not None
    put("a/python3.99", "3.99.1")
    assert getattr(looking.find("python3.99"), "note", None) is not None
    monkeypatch.setattr(interpreters, "AGAIN_AFTER", 0.0)
    found = looking.find("python3.99")
    assert isinstance(found, Interpreter)
    assert (found.version, found.note) == ("3.99.1", None)


def test_a_node_js_of_another_version_is_named(put: Put, tmp_path: Path) -> None:
    for path, version in (("a/node", "20.1.0"), ("b/node", "18.9.9"), ("b/nodejs", "20.1.0")):
        put(path, version, name="node")
    missing = Interpreters(folders=[tmp_path / "a", tmp_path / "b"], release="").find("nodejs98.x")
    assert isinstance(missing, Missing)
    assert missing.reason.startswith("Node.js 98 is not on this machine, which has 18.9.9 and 20.1.0: install it from")


def test_a_version_manager_of_another_user_is_passed_over(tmp_path: Path) -> None:
    manager = tmp_path / "manager"
    (manager / "shims").mkdir(parents=True)
    manager.chmod(0)
    child = os.fork()
    if child == 0:  # root would see everything
        try:
            if os.geteuid() == 0:
                os.setresuid(65534, 65534, 65534)
            found = Interpreters("error", folders=[manager / "shims"]).find("python3.99")
            os._exit(0 if isinstance(found, Missing) else 2)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    manager.chmod(0o700)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_program_that_never_answers_is_given_up(put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreters, "_PATIENCE", 0.2)
    put("a/python3.99", "3.99.1", before="exec sleep 60")
    assert isinstance(Interpreters("error", folders=[tmp_path / "a"]).find("python3.99"), Missing)


async def test_a_search_leaves_the_loop_free(put: Put, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    put("a/python3.99", "3.99.1", before=f"read line < {shlex.quote(str(fifo))}")
    search = asyncio.create_task(Interpreters("error", folders=[tmp_path / "a"]).find_for("f", "python3.99", Log()))
    async with asyncio.timeout(20):
        while True:  # the program waits for what this loop writes
            try:
                writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
                break
            except OSError:
                await asyncio.sleep(0.01)
        os.write(writer, b"go\n")
        os.close(writer)
        assert isinstance(await search, Interpreter)


async def test_another_python_is_said_once_for_each_function() -> None:
    looking, log = Interpreters("use", folders=[]), Log()
    for function in ("greet", "greet", "order"):
        await looking.find_for(function, f"python{NOT_HERE}", log)
    await looking.find_for("own", f"python{HOSTS}", log)
    assert [fields["function"] for _, fields in log.lines] == ["greet", "order"]
    event, fields = log.lines[0]
    assert event == "function runs on another interpreter"
    assert "Python 3.99 is not on this machine, the host's" in str(fields["why"])


# ---------------------------------------------------------------------------------------------- the command of Node.js

NODE = Interpreter(runtime="nodejs20.x", kind="node", path=Path("/usr/bin/node"), version="20.1.0")


def test_node_gets_our_client_the_handler_and_most_of_the_memory() -> None:
    command = node_command(NODE, "src/index.handler", memory_mb=1000)
    heap = ["--max-old-space-size=900", "--max-semi-space-size=50"]
    assert command == ["/usr/bin/node", *heap, str(NODE_CLIENT), "src/index.handler"]
    assert NODE_CLIENT.is_file()


@pytest.mark.parametrize("options", ["--max-old-space-size=64", "--enable-source-maps --max_old_space_size=64"])
def test_what_the_function_says_of_its_heap_counts(options: str) -> None:
    assert node_command(NODE, "a.b", memory_mb=128, options=options) == ["/usr/bin/node", str(NODE_CLIENT), "a.b"]


@pytest.mark.parametrize(
    ("version", "options", "flags"),
    [
        ("18.20.4", "", []),
        ("20.16.0", "", []),
        ("20.19.0", "", ["--no-experimental-require-module"]),
        ("20.19.0", "--experimental-require-module", []),
        ("22.12.0", "", ["--no-experimental-require-module", "--no-experimental-detect-module"]),
        ("22.12.0", "--experimental-require-module", ["--no-experimental-detect-module"]),
        ("24.1.0", "", []),
    ],
)
def test_experiments_of_node_are_left_out_as_on_aws_unless_the_function_asks_for_them(
    version: str, options: str, flags: list[str]
) -> None:
    found = replace(NODE, version=version)
    command = node_command(found, "a.b", memory_mb=100, options=f"{options} --max-old-space-size=64")
    assert command == ["/usr/bin/node", *flags, str(NODE_CLIENT), "a.b"]


def test_npms_client_is_taken_from_where_it_is_by_the_name_that_it_has_there(tmp_path: Path) -> None:
    program = tmp_path / "layer/node_modules/aws-lambda-ric/bin/index.mjs"
    program.parent.mkdir(parents=True)
    program.write_text("")
    folders = {tmp_path: tmp_path, tmp_path / "layer": Path("/opt/nodejs")}
    command = node_command(NODE, "a.b", memory_mb=128, client="awslambdaric", folders=folders)
    assert not isinstance(command, Missing)
    assert command[-2:] == ["/opt/nodejs/node_modules/aws-lambda-ric/bin/index.mjs", "a.b"]
    missing = node_command(NODE, "a.b", memory_mb=128, client="awslambdaric", folders={tmp_path: tmp_path})
    assert isinstance(missing, Missing)
    assert "npm's aws-lambda-ric" in missing.reason
