"""What ``serverfull doctor`` says of a real engine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from serverfull.testing.process import plain_environment

pytestmark = pytest.mark.slow


def test_the_engine_and_the_images_of_runtimes_are_shown(engine):
    images = [f"python3.11={engine.image}", "ruby3.4=nobody/has:this"]
    settings = {"SERVERFULL_DOCKER__ENGINE": engine.url, "SERVERFULL_DOCKER_IMAGES": json.dumps(images)}
    command = [sys.executable, "-m", "serverfull", "doctor", "--port", "0"]

    def doctor(*options):
        done = subprocess.run(
            [*command, *options], env=plain_environment() | settings, capture_output=True, text=True, check=True
        )
        return done.stdout

    with engine.client() as client:
        version = client.version()["Version"]
    shown = json.loads(doctor("--output", "json"))
    assert shown["machine"]["docker"] == {"state": "ok", "detail": f"engine {version} at {engine.url}"}
    missing = "nobody/has:this is not in the engine, which pulls it when it is first needed"
    assert shown["images"] == {
        "python3.11": {"state": "ok", "detail": engine.image},
        "ruby3.4": {"state": "missing", "detail": missing},
    }
    rows = doctor().rpartition("\n\n")[2].splitlines()
    assert [row.split()[0] for row in rows] == ["IMAGE", "python3.11", "ruby3.4"]
