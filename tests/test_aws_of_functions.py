"""The credentials that functions get: whatever runs them, nothing but what is meant for them, and seen nowhere else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from serverfull.runtimes.process.means import probe_strict
from serverfull.testing.clients import lambda_client
from serverfull.testing.deployments import create, deploy, invoke, wait_until_ready
from serverfull.testing.process import HostProcess, plain_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

pytestmark = pytest.mark.slow

PYTHON_CODE = "import os\ndef handler(event, context):\n    return dict(os.environ)\n"
NODE_CODE = "export const handler = async () => ({ ...process.env });\n"
BOOTSTRAP = """#!/bin/sh
api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"
while curl -s -D head -o /dev/null "$api/next"; do
    id=$(sed -n 's/^Lambda-Runtime-Aws-Request-Id: *//Ip' head | tr -d '\\r')
    python3 -c 'import json, os; print(json.dumps(dict(os.environ)))' | curl -s -o /dev/null --data-binary @- "$api/$id/response"
done
"""  # noqa: E501
CANARY = "canary-5b1c"
HOSTS_OWN = {
    "AWS_ACCESS_KEY_ID": CANARY,
    "AWS_SECRET_ACCESS_KEY": CANARY,
    "AWS_SESSION_TOKEN": CANARY,
    "AWS_PROFILE": CANARY,
    "AWS_ENDPOINT_URL": f"http://{CANARY}",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN": CANARY,
    "DATABASE_PASSWORD": CANARY,
}
"""What no function may see unless it is meant to."""


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., HostProcess]:
    def start(environ: Mapping[str, str], **settings: str) -> HostProcess:
        named = {f"SERVERFULL_AWS__{name.upper()}": value for name, value in settings.items()}
        return HostProcess.start(None, "--state", "memory", cwd=tmp_path, env={**environ, **named})

    return start


def variables_by_client(client: Any) -> dict[str, dict[str, str]]:
    """Give the environment of a function as each runtime client shows it."""
    deploy(client, "own", {"app.py": PYTHON_CODE})
    deploy(client, "awslambdaric", {"app.py": PYTHON_CODE}, Tags={"serverfull:client": "awslambdaric"}, Timeout=20)
    deploy(
        client, "bootstrap", {"bootstrap": BOOTSTRAP}, executable=["bootstrap"], Runtime="provided.al2023", Timeout=20
    )
    if shutil.which("node"):
        create(client, "node", {"app.mjs": NODE_CODE}, Runtime="nodejs20.x", Timeout=20)
        wait_until_ready(client, "node")
    return {
        name: invoke(client, name)
        for name in ("own", "awslambdaric", "bootstrap", *(["node"] if shutil.which("node") else []))
    }


def of_aws(variables: Mapping[str, str]) -> dict[str, str]:
    credentials = ("ACCESS", "SECRET", "SESSION", "PROFILE", "SHARED", "CONFIG", "ENDPOINT", "CONTAINER")
    return {name: value for name, value in variables.items() if any(f"AWS_{word}" in name for word in credentials)}


def test_functions_find_nothing_of_the_hosts_environment_whatever_runs_them(
    start: Callable[..., HostProcess],
) -> None:
    with start(HOSTS_OWN) as host:
        for name, variables in variables_by_client(lambda_client(host.url)).items():
            assert CANARY not in json.dumps(variables), name
            assert of_aws(variables) == {"AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_CONFIG_FILE": "/dev/null"}


def test_functions_find_the_credentials_and_endpoints_that_are_meant_for_them_whatever_runs_them(
    start: Callable[..., HostProcess],
) -> None:
    settings = {"credentials": "static", "endpoint_url": "http://all", "endpoints": "s3=http://s3"}
    with start(HOSTS_OWN, **settings) as host:
        for name, variables in variables_by_client(lambda_client(host.url)).items():
            assert CANARY not in json.dumps(variables), name
            assert of_aws(variables) == {
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_SESSION_TOKEN": "test",
                "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
                "AWS_CONFIG_FILE": "/dev/null",
                "AWS_ENDPOINT_URL": "http://all",
                "AWS_ENDPOINT_URL_S3": "http://s3",
            }


def test_credentials_are_seen_by_functions_and_by_nobody_else(
    start: Callable[..., HostProcess], tmp_path: Path
) -> None:
    secrets = {"credentials": "static", "secret_access_key": CANARY, "session_token": CANARY}
    with start({"SERVERFULL_LOGGING__LEVEL": "DEBUG"}, **secrets) as host:
        client = lambda_client(host.url)
        deploy(client, "f", {"app.py": PYTHON_CODE})
        deploy(client, "fails", {"app.py": "def handler(event, context):\n    raise ValueError\n"})
        assert invoke(client, "f")["AWS_SECRET_ACCESS_KEY"] == CANARY
        with pytest.raises(ClientError) as refused:
            create(client, "g", {"app.py": ""}, Environment={"Variables": {"AWS_SECRET_ACCESS_KEY": "mine"}})
        assert "AWS_SECRET_ACCESS_KEY" in str(refused.value)
        shown = [
            client.get_function(FunctionName="f"),
            client.list_functions(),
            invoke(client, "fails"),
            *(host.request("GET", path).body for path in ("/_serverfull/info", "/metrics", "/_serverfull/logs/f")),
        ]
    shown += [host.stdout_lines(), host.stderr_lines()]
    environ = plain_environment() | {f"SERVERFULL_AWS__{name.upper()}": value for name, value in secrets.items()}
    for command in (["config", "show"], ["config", "show", "--output", "json"], ["doctor"]):
        done = subprocess.run(
            [sys.executable, "-m", "serverfull", *command], env=environ, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        shown += [done.stdout, done.stderr]
    assert CANARY not in str(shown)


READING = """
import os
def handler(event, context):
    named = os.environ["AWS_SHARED_CREDENTIALS_FILE"]
    try:
        open(named, "a")
        writable = True
    except OSError:
        writable = False
    return [open(named).read(), sorted(os.listdir(os.path.dirname(named))), writable]
"""


def test_processes_behind_walls_read_the_profiles_of_the_operator_and_nothing_beside_them(tmp_path: Path) -> None:
    if missing := probe_strict().why:
        pytest.skip(f"this machine allows no strict sandbox: {missing}")
    folder = tmp_path / "aws"
    folder.mkdir(mode=0o700)
    profiles = folder / "credentials"
    profiles.touch(mode=0o600)
    profiles.write_text("[default]\n")
    (folder / "private").write_text("")
    environ = {
        "SERVERFULL_AWS__CREDENTIALS": "profile",
        "SERVERFULL_AWS__PROFILE_FOLDER": str(folder),
        "SERVERFULL_EXECUTION__SANDBOX": "strict",
        "SERVERFULL_EXECUTION__EPHEMERAL": "true",
    }
    with HostProcess.start(None, "--state", "memory", cwd=tmp_path, env=environ) as host:
        client = lambda_client(host.url)
        deploy(client, "f", {"app.py": READING}, Timeout=20)
        assert invoke(client, "f") == ["[default]\n", ["credentials"], False]
        profiles.write_text("[default]\n[other]\n")
        assert invoke(client, "f") == ["[default]\n[other]\n", ["credentials"], False]


def test_a_malformed_secret_is_refused_without_showing_it(tmp_path: Path) -> None:
    (tmp_path / "serverfull.toml").write_text(f"[aws]\nsecret_access_key = ['{CANARY}']\n")
    done = subprocess.run(
        [sys.executable, "-m", "serverfull", "config", "show"],
        env=plain_environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == "Error: serverfull.toml: aws.secret_access_key: what it says is not text\n"


def test_a_host_whose_functions_could_have_no_credentials_does_not_start(tmp_path: Path) -> None:
    for settings, said in (
        ({"CREDENTIALS": "passthrough"}, "has no AWS_ACCESS_KEY_ID"),
        ({"CREDENTIALS": "profile", "PROFILE_FOLDER": str(tmp_path / "gone")}, "is no folder"),
        ({"ENDPOINTS": "CLOUDWATCHLOGS=http://h"}, "did you mean CLOUDWATCH_LOGS?"),
    ):
        environ = {f"SERVERFULL_AWS__{name}": value for name, value in settings.items()}
        done = subprocess.run(
            [sys.executable, "-m", "serverfull", "serve", "--port", "0"],
            env=plain_environment() | environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 2, (done.stdout, done.stderr)
        assert said in done.stderr
        assert "Traceback" not in done.stderr
