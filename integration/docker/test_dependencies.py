"""Functions in containers whose packages say what they need: installed on the host, for the container's Python."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from serverfull.config import (
    DependencySettings,
    DockerSettings,
    ExecutionSettings,
    LoggingSettings,
    Settings,
    StateSettings,
)
from serverfull.testing.deployments import deploy, invoke
from serverfull.testing.hosts import ThreadHost
from serverfull.testing.indexes import Index, serving

pytestmark = pytest.mark.slow

CODE = """
import greeting

def handler(event, context):
    return [greeting.TEXT, greeting.__file__]
"""


@pytest.mark.parametrize("client", ["own", "awslambdaric"])
def test_a_container_sees_what_its_package_names_beside_the_code(engine, require, tmp_path, monkeypatch, client):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    require("uv", shutil.which("uv"), "pip install uv")
    tmp_path.chmod(0o755)
    with serving(Index()) as index:
        index.add("greeting", "1.0", {"greeting.py": "TEXT = 'Hello!'\n"})
        settings = Settings(
            dependencies=DependencySettings(install="on", python_index=index.simple),
            docker=DockerSettings(engine=engine.url, images=(f"python3.11={engine.image}",)),
            execution=ExecutionSettings(mode="docker", client=client),
            logging=LoggingSettings(functions="NULL", output="NULL"),
            state=StateSettings(path=str(tmp_path / "state")),
        )
        with ThreadHost({}, settings=settings) as host:
            files = {"app.py": CODE, "requirements.txt": "greeting\n"}
            deploy(host.client(), "f", files, Runtime="python3.11")
            assert invoke(host.client(), "f") == ["Hello!", "/var/task/greeting.py"]
