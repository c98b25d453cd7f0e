"""A host to which tools deploy, and the environment in which they are run."""

from __future__ import annotations

import subprocess

import pytest

from serverfull.testing.process import HostProcess, plain_environment


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    with HostProcess.start(None, "--state", str(tmp_path_factory.mktemp("state"))) as host:
        yield host


@pytest.fixture
def run(aws_variables, tmp_path):
    """Run a command that succeeds, in the folder of the test; gives what it printed.

    All services of AWS are at the host's address, so that a call to another one than Lambda fails and goes nowhere.
    """
    env = plain_environment() | aws_variables | {"AWS_EC2_METADATA_DISABLED": "true", "SLS_TELEMETRY_DISABLED": "1"}

    def command(*arguments: object, text: str | None = None) -> str:
        done = subprocess.run(
            list(map(str, arguments)),
            cwd=tmp_path,
            env=env,
            input=text or "",
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return command
