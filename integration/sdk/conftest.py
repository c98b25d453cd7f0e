"""The hosts that the clients of this folder call, and the AWS CLI with its shell.

A module that wants another host than the one of functions has a fixture ``host`` of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from serverfull.testing.process import HostProcess, plain_environment


@pytest.fixture(scope="session")
def host():
    with HostProcess.start(f"{Path(__file__).parent}/functions.py:functions") as host:
        yield host


@pytest.fixture(scope="session")
def fresh_host(tmp_path_factory):
    """A host without any function of its own, to which clients deploy."""
    with HostProcess.start(None, "--state", str(tmp_path_factory.mktemp("state"))) as host:
        yield host


@pytest.fixture
def run(host, aws_variables, tmp_path):
    """Run a command line in a shell, in an empty folder."""
    env = aws_variables | {"AWS_PAGER": "", "AWS_MAX_ATTEMPTS": "1"}

    def shell(command: str, *, first_on_path: str = "") -> subprocess.CompletedProcess[str]:
        command = command.replace("localhost:8080", f"localhost:{host.port}")
        path = os.pathsep.join(filter(None, (first_on_path, os.environ["PATH"])))
        return subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=plain_environment() | env | {"PATH": path},
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )

    return shell


@pytest.fixture(scope="session")
def aws_version():
    """Find the folder of the newest AWS CLI and its version, such as 2; (None, 0) where there is none."""
    found = {}
    for folder in os.get_exec_path():
        if os.access(Path(folder, "aws"), os.X_OK):
            done = subprocess.run(
                [Path(folder, "aws"), "--version"], capture_output=True, text=True, timeout=50, check=False
            )
            if version := re.match(r"aws-cli/(\d+)", done.stdout):
                found.setdefault(int(version[1]), folder)
    newest = max(found, default=0)
    return found.get(newest), newest


@pytest.fixture
def aws(run, require, aws_version):
    """Run command lines with the newest AWS CLI on the PATH, in an empty folder.

    Version 1 knows no ``--cli-binary-format`` and behaves as if ``raw-in-base64-out`` had been said, so that option is
    left out for it.
    """
    folder, version = aws_version
    require("the AWS CLI", folder, "make clients")

    def command_line(text: str) -> subprocess.CompletedProcess[str]:
        if version == 1:
            text = re.sub(r" --cli-binary-format raw-in-base64-out", " ", text)
        return run(text, first_on_path=folder)

    return command_line
