"""``serverfull doctor``, on this machine and with programs that are put in the place of its own."""

from __future__ import annotations

import json
import re
import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serverfull.domain.runtimes import RUNTIMES
from serverfull.runtimes.process.means import probe, probe_strict

Run = Callable[..., Any]

HOSTS = "python{}.{}".format(*sys.version_info[:2])
MACHINE = [
    *("sandbox", "strict", "memory", "processes", "/tmp", "/opt", "dependencies", "watching", "state", "port", "docker")
]


@pytest.fixture
def found(run: Run) -> Callable[..., dict[str, Any]]:
    """Give what the command finds, as JSON; the port is any, so that no other test is in its way."""

    def findings(*arguments: str, **variables: str) -> dict[str, Any]:
        done = run("doctor", "--port", "0", *arguments, "--output", "json", **variables)
        assert (done.returncode, done.stderr) == (0, "")
        described: dict[str, Any] = json.loads(done.stdout)
        return described

    return findings


def put(folder: Path, name: str, *lines: str) -> Path:
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    program.chmod(0o755)
    return folder


def test_the_table_has_a_line_for_each_runtime_and_each_part_of_the_machine(run: Run, tmp_path: Path) -> None:
    done = run("doctor", "--port", "0")
    assert (done.returncode, done.stderr) == (0, "")
    runtimes, machine = (part.splitlines() for part in done.stdout.split("\n\n"))
    assert [line.split()[0] for line in runtimes] == ["RUNTIME", *RUNTIMES]
    assert [line.split()[0] for line in machine] == ["MACHINE", *MACHINE]
    (own,) = (line for line in runtimes if line.startswith(f"{HOSTS} "))
    assert own.split()[1:] == ["ok", sys.executable, "({}.{}.{})".format(*sys.version_info[:3])]
    assert not list(tmp_path.iterdir())


def test_json_has_the_same(found: Callable[..., dict[str, Any]]) -> None:
    described = found()
    assert list(described["runtimes"]) == list(RUNTIMES)
    assert list(described["machine"]) == MACHINE
    assert described["runtimes"]["provided.al2023"] == {"state": "ok", "detail": "the function's own bootstrap"}
    assert described["runtimes"]["java21"]["state"] == "missing"


def test_what_is_not_here_says_what_to_install(found: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    folder = put(tmp_path / "bin", "node", 'echo \'["node", "98.1.0", "/bin/sh"]\'')
    runtimes = found(PATH=str(folder))["runtimes"]
    absent = next(name for name in reversed(RUNTIMES) if name.startswith("nodejs") and runtimes[name]["state"] != "ok")
    assert runtimes[absent]["state"] == "missing"
    assert re.search(" is not on this machine.*: install it", runtimes[absent]["detail"])


@pytest.mark.parametrize(("policy", "state"), [("use", "other"), ("error", "missing")])
def test_the_policy_for_other_pythons_shows(found: Callable[..., dict[str, Any]], policy: str, state: str) -> None:
    runtimes = found(SERVERFULL_EXECUTION__OTHER_PYTHON=policy)["runtimes"]
    pythons = {name: shown["state"] for name, shown in runtimes.items() if name.startswith("python")}
    assert pythons[HOSTS] == "ok"
    assert set(pythons.values()) == {"ok", state}


def test_the_means_of_the_sandbox_are_those_that_hosts_use(found: Callable[..., dict[str, Any]]) -> None:
    machine, means = found()["machine"], probe()
    shown = [machine[name]["state"] for name in MACHINE[:6]]
    assert shown == [
        "limits",
        "impossible" if probe_strict().why else "possible",
        means.memory,
        means.pids,
        means.tmp,
        means.opt,
    ]
    for name, key in (("memory", "memory"), ("processes", "pids"), ("/tmp", "tmp"), ("/opt", "opt")):
        assert machine[name]["detail"] == means.why.get(key, "")
    assert found(SERVERFULL_EXECUTION__SANDBOX="none")["machine"]["sandbox"]["state"] == "none"


def test_a_state_that_can_be_kept_is_told_from_one_that_cannot(
    found: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "kept").mkdir()
    states = {
        path: found("--state", path)["machine"]["state"] for path in ("kept", "new/er", "file", "file/below", "memory")
    }
    assert states["kept"] == {"state": "ok", "detail": str(tmp_path / "kept")}
    assert states["new/er"] == {"state": "ok", "detail": f"{tmp_path / 'new/er'}, which the first host makes"}
    assert states["file"] == {"state": "unusable", "detail": f"{tmp_path / 'file'} cannot be written: Not a directory"}
    assert states["file/below"]["state"] == "unusable"
    assert states["memory"]["state"] == "memory"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "kept"]
    assert not list((tmp_path / "kept").iterdir())


def test_a_folder_that_cannot_be_written_is_no_place_for_the_state(found: Callable[..., dict[str, Any]]) -> None:
    state = found("--state", "/proc/serverfull")["machine"]["state"]
    assert state["state"] == "unusable"
    assert state["detail"].startswith("/proc cannot be written: ")


def test_a_port_that_is_taken_is_in_use(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("doctor", "--port", str(port), "--output", "json")
        assert done.returncode == 0
        shown = json.loads(done.stdout)["machine"]["port"]
    assert shown["state"] == "in use"
    assert f"127.0.0.1:{port}" in shown["detail"]


def test_an_address_that_is_not_this_machines_is_unusable(found: Callable[..., dict[str, Any]]) -> None:
    assert found("--host", "192.0.2.1")["machine"]["port"]["state"] == "unusable"


def test_without_an_engine_docker_is_missing_and_nothing_is_known_of_its_images(
    found: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    socket_there = f"unix://{tmp_path}/docker.sock"
    shown = found(SERVERFULL_DOCKER__ENGINE=socket_there, SERVERFULL_DOCKER_IMAGES="ruby3.4=ruby:mine")
    assert shown["machine"]["docker"]["state"] == "missing"
    assert f"{socket_there} cannot be reached" in shown["machine"]["docker"]["detail"]
    assert shown["images"] == {"ruby3.4": {"state": "unknown", "detail": "ruby:mine"}}


def test_what_is_no_engine_is_told_from_one(found: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            if self.rfile.readline():
                self.wfile.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\nnope")

    with socketserver.UnixStreamServer(f"{tmp_path}/docker.sock", Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        shown = found(SERVERFULL_DOCKER__ENGINE=f"unix://{tmp_path}/docker.sock")["machine"]["docker"]
        server.shutdown()
    assert shown["state"] == "missing"
    assert "500" in shown["detail"]


def test_a_wrong_setting_is_the_only_thing_that_ends_it_otherwise(run: Run) -> None:
    done = run("doctor", SERVERFULL_EXECUTION__SANDBOX="loose")
    assert (done.returncode, done.stdout) == (2, "")
    assert "'loose' is not one of none, limits, strict" in done.stderr


def test_what_notices_changes_is_shown(found: Callable[..., dict[str, Any]]) -> None:
    assert found()["machine"]["watching"]["state"] == "possible"
    shown = found(SERVERFULL_RELOAD__POLLING="true")["machine"]["watching"]
    assert shown == {"state": "polling", "detail": "every 1 s, as reload.polling says"}


def test_what_installs_dependencies_is_shown(found: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    put(tmp_path / "programs", "uv")
    programs = str(put(tmp_path / "programs", "npm"))
    on = {"SERVERFULL_DEPENDENCIES__INSTALL": "on", "PATH": programs}
    shown = found(**on)["machine"]["dependencies"]
    assert shown == {"state": "on", "detail": f"uv: {programs}/uv; npm: {programs}/npm"}
    shown = found(**on, SERVERFULL_DEPENDENCIES__PYTHON_INSTALLER="pip")["machine"]["dependencies"]
    assert shown["detail"].startswith("pip of the Python that runs the function; npm: ")
