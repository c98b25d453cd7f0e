"""What ``serverfull build`` makes, run as AWS runs it: without the sources and without what is installed here."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from serverfull.testing.process import plain_environment
from serverfull.testing.runtime_api import NativeLambda

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(params=["zip", "pyz", "bootstrap"])
def order(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NativeLambda]:
    """The function of an artifact, in a folder where nothing else is."""
    get: Callable[[str], Any] = request.getfixturevalue
    env = {"TMPDIR": str(tmp_path / "tmp"), "PATH": "/usr/bin:/bin"}
    (tmp_path / "tmp").mkdir()
    if request.param == "zip":
        cwd = get("task_folder")
        env["PYTHONPATH"] = f"{cwd}:{get('managed_runtime')}"
        command = [get("clean_python"), "-m", "awslambdaric", "serverfull.lambda_mode.handler.handler"]
    else:
        artifact = get(f"order_{request.param}")
        cwd = tmp_path / "task"
        cwd.mkdir()
        shutil.copy(artifact, cwd)
        command = [cwd / artifact.name]
        if request.param == "pyz":
            command = [get("clean_python"), "-I", *command]
    with NativeLambda(command, cwd=cwd, env=env, function_name="my-orders", timeout=20) as native:
        yield native


def test_an_artifact_starts_cold_answers_warm_and_survives_errors_and_a_timeout(order: NativeLambda) -> None:
    answers = [order.invoke({"item": "tea"}) for _ in range(3)]
    assert [answer.json() for answer in answers] == [
        {"price": 250, "calls": number, "function": "my-orders", "note": "a note\n"} for number in (1, 2, 3)
    ]
    assert [answer.cold for answer in answers] == [True, False, False]
    order.wait_for_output(answers[2].request_id)  # a line comes after its answer
    assert order.output().count("cold start") == 1

    failed = order.invoke({"item": "coffee"})
    assert (failed.function_error, failed.cold) == ("Unhandled", False)
    error = failed.json()
    assert (error["errorType"], error["errorMessage"]) == ("NoPriceError", "no price for coffee")
    assert [frame.partition(", in ")[2].split()[0] for frame in error["stackTrace"]] == ["order", "of"]
    invalid = order.invoke([1]).json()
    assert (invalid["errorType"], invalid["stackTrace"]) == ("ValidationError", [])

    slow = order.invoke({"item": "slow"}, timeout=0.5)
    assert slow.json()["errorType"] == "Sandbox.Timedout"
    again = order.invoke({"item": "tea"})
    assert (again.cold, again.json()["calls"]) == (True, 1)

    order.wait_for_output('"orders":1')
    assert any(f"\t{answers[1].request_id}\tsold item=tea" in line for line in order.output())
    print(f"cold starts: {', '.join(f'{seconds * 1000:.0f} ms' for seconds in order.init_seconds)}")


def test_a_zip_holds_what_the_function_needs_and_no_more(order_zip: Path) -> None:
    with zipfile.ZipFile(order_zip) as packed:
        top = {name.partition("/")[0] for name in packed.namelist()}
        names = packed.namelist()
    known = {"shop.py", "prices.py", "note.txt", "serverfull", "serverfull_artifact.py", "simplejson"}
    assert {name for name in top if not name.endswith(".dist-info")} == known
    assert not [name for name in names if name.startswith(("serverfull/api", "serverfull/cli", "serverfull/building"))]
    assert order_zip.stat().st_size < 1_000_000


def test_the_same_input_makes_the_same_bytes_from_a_checkout_and_from_an_installed_wheel(
    build: Callable[..., Any], tmp_path: Path
) -> None:
    checkout, installed = tmp_path / "checkout", tmp_path / "installed"
    checkout.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    shutil.copytree(ROOT / "serverfull", checkout / "serverfull", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-build-isolation", "--target", installed, checkout], check=True, timeout=120
    )
    arguments = ("shop.py", "--function", "order", "--format", "zip", "--include", "note.txt")
    first, second = (build(*arguments, package=package).path for package in (checkout, installed))
    assert first.read_bytes() == second.read_bytes()


def test_a_zip_has_the_wheels_of_the_platform_that_is_asked_for_and_the_validation_where_it_is_used(
    build: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "typed.py").write_text(
        "from dataclasses import dataclass\n@dataclass\nclass E:\n    n: int\ndef handler(e: E) -> E:\n    return e\n"
    )
    (tmp_path / "requirements.txt").write_text("simplejson>=3.19\n")
    done = build(
        *(f"{tmp_path}/typed.py:handler", "--format", "zip", "--output", "out.zip"),
        *("--requirements", str(tmp_path / "requirements.txt")),
        *("--python-platform", "manylinux2014_aarch64", "--python-version", "3.12"),
    )
    assert "runtime python3.12, architecture arm64, handler serverfull.lambda_mode.handler.handler" in done.stderr
    with zipfile.ZipFile(done.path) as packed:
        compiled = [name for name in packed.namelist() if name.endswith(".so")]
    assert any(name.startswith("pydantic_core/") for name in compiled)
    assert all("cpython-312-aarch64" in name for name in compiled)


def test_a_bootstrap_is_one_executable_and_ready_for_upload(order_bootstrap: Path) -> None:
    assert order_bootstrap.name == "bootstrap"
    assert os.access(order_bootstrap, os.X_OK)
    with zipfile.ZipFile(f"{order_bootstrap}.zip") as packed:
        (entry,) = packed.infolist()
    assert (entry.filename, stat.filemode(entry.external_attr >> 16)) == ("bootstrap", "-rwxr-xr-x")


COMPLETE = """
import importlib, importlib.metadata, os, time
import orjson

def handler(event):
    if event == "slow":
        time.sleep(60)
    version, value = importlib.metadata.version(orjson.__name__), importlib.import_module(event).VALUE
    return [orjson.dumps(event).decode(), value, bool(version), "LD_LIBRARY_PATH" in os.environ]
"""


def test_a_bootstrap_holds_compiled_packages_their_metadata_and_what_is_included_and_fills_no_disk(
    build: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "complete.py").write_text(COMPLETE)
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "__init__.py").write_text("VALUE = 'by its name'\n")
    (tmp_path / "requirements.txt").write_text("orjson>=3.10\n")
    bootstrap = build(
        *(f"{tmp_path}/complete.py:handler", "--format", "bootstrap", "--include", str(tmp_path / "plugin")),
        *("--requirements", str(tmp_path / "requirements.txt")),
    ).path
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with NativeLambda([bootstrap], cwd=tmp_path, env={"TMPDIR": str(temporary), "PATH": "/usr/bin:/bin"}) as native:
        assert native.invoke("plugin").json() == ['"plugin"', "by its name", True, False]
        for _ in range(3):
            assert native.invoke("slow", timeout=0.2).json()["errorType"] == "Sandbox.Timedout"
        assert native.invoke("plugin").cold
        assert len(list(temporary.glob("_MEI*"))) == 1


def test_a_program_that_is_included_can_be_started(
    build: Callable[..., Any], clean_python: Path, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(
        "import pathlib, subprocess\ndef handler():\n"
        "    return subprocess.check_output([pathlib.Path(__file__).with_name('tool')], text=True)\n"
    )
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\nprintf started\n")
    tool.chmod(0o755)
    pyz = build(f"{tmp_path}/program.py:handler", "--format", "pyz", "--include", str(tool)).path
    with NativeLambda([clean_python, pyz], cwd=tmp_path, env={"TMPDIR": str(tmp_path)}) as native:
        assert native.invoke().json() == "started"


def test_what_the_function_imports_and_nothing_brings_is_said_when_it_is_built(
    build: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "lacking.py").write_text("import boto3, pytest\ndef handler():\n    return 1\n")
    zipped = build(f"{tmp_path}/lacking.py:handler", "--format", "zip").stderr
    pyz = build(f"{tmp_path}/lacking.py:handler", "--format", "pyz").stderr
    for said in (zipped, pyz):
        assert "WARNING: the function imports what is not inside: " in said
        assert f"pytest ({pytest.__file__})" in said
    assert "boto3 (" in pyz
    assert "boto3" not in zipped  # Lambda's runtimes for Python have it
    complete = build("shop.py", "--function", "order", "--format", "zip").stderr
    assert "WARNING" not in complete


def test_a_pyz_needs_the_python_that_it_is_built_for_and_says_what_it_is_run_by(
    order_pyz: Path, clean_python: Path, tmp_path: Path
) -> None:
    env = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)}
    done = subprocess.run([clean_python, order_pyz], env=env, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 3
    assert "AWS_LAMBDA_RUNTIME_API is not set" in done.stderr
    (unpacked,) = tmp_path.iterdir()
    unpacked.chmod(0o777)
    done = subprocess.run([clean_python, order_pyz], env=env, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, "belongs to somebody else" in done.stderr) == (1, True)


def test_in_an_artifact_a_module_of_the_current_folder_does_not_hide_the_functions_own(
    order_pyz: Path, clean_python: Path, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text("raise SystemExit('the wrong shop')")
    with NativeLambda([clean_python, order_pyz], cwd=tmp_path, env={"TMPDIR": str(tmp_path)}) as native:
        assert native.invoke({"item": "tea"}).json()["price"] == 250


def test_a_mocked_artifact_answers_without_running_its_handler(
    build: Callable[..., Any], clean_python: Path, tmp_path: Path
) -> None:
    pyz = build("shop.py", "--function", "order", "--format", "pyz", "--mock").path
    with NativeLambda([clean_python, pyz], cwd=tmp_path, env={"TMPDIR": str(tmp_path)}) as native:
        assert json.loads(native.invoke({"item": "coffee"}).payload) == {}


def test_a_bootstrap_runs_in_a_container_of_debian_packages(engine, order_bootstrap, require, tmp_path) -> None:
    require("the docker command", shutil.which("docker"), "apt-get install docker.io")
    environment = {**plain_environment(), "DOCKER_HOST": engine.url}
    image, container = "serverfull-test-bootstrap", f"serverfull-test-{os.getpid()}"
    root = tmp_path / "root"
    subprocess.run(["apt-get", "download", "libc6", "zlib1g"], cwd=tmp_path, check=True, timeout=120)
    for package in tmp_path.glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", package, root], check=True, timeout=60)
    (root / "tmp").mkdir(mode=0o1777)
    shutil.copy(order_bootstrap, root / "bootstrap")
    packed = subprocess.run(["tar", "--create", "--directory", root, "."], check=True, capture_output=True, timeout=60)
    run = partial(subprocess.run, capture_output=True, env=environment)
    run(["docker", "import", "-", image], input=packed.stdout, check=True, timeout=120)
    names = ["AWS_LAMBDA_RUNTIME_API", "AWS_LAMBDA_FUNCTION_NAME"]
    command = ["docker", "run", "--rm", "--network=host", f"--name={container}", *(f"--env={name}" for name in names)]
    try:
        with NativeLambda([*command, image, "/bootstrap"], env=environment, timeout=30) as native:
            assert native.invoke({"item": "tea"}).json()["price"] == 250
            assert native.invoke({"item": "coffee"}).json()["errorType"] == "NoPriceError"
            assert native.invoke({"item": "tea"}).cold is False
    finally:
        run(["docker", "rm", "--force", container], check=False)
        run(["docker", "rmi", "--force", image], check=False)
