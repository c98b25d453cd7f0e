"""The JavaScript SDK (version 3) deploys a function, waits for it, changes it and deletes it, in one script."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from serverfull.testing.deployments import zipped

JS = Path(__file__).parent / "js"
ARN = "arn:aws:lambda:us-east-1:123456789012:function:greet-from-js"

pytestmark = pytest.mark.real_client

CODE = """\
import os

def handler(event, context):
    return f"{os.environ['GREETING']} {event['name']}%s"
"""


@pytest.fixture(scope="module")
def told(fresh_host, require, tmp_path_factory) -> dict[str, Any]:
    """Run the script once; gives what it prints."""
    require("Node.js", shutil.which("node"), "install nodejs")
    require("the JavaScript SDK", (JS / "node_modules/@aws-sdk/client-lambda").is_dir(), "make clients")
    packages = tmp_path_factory.mktemp("packages")
    for name, text in (("first.zip", CODE % ""), ("second.zip", CODE % "!")):
        (packages / name).write_bytes(zipped({"greet.py": text}))
    script = ["node", "--no-warnings", JS / "lifecycle.mjs", fresh_host.url, "greet-from-js"]
    done = subprocess.run(
        [*script, packages / "first.zip", packages / "second.zip"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_function_is_made_and_becomes_active(told) -> None:
    assert told["created"] == {"arn": ARN, "state": "Pending", "status": 201}
    assert (told["active"], told["greeted"]) == ("SUCCESS", "Hello é")


def test_a_name_that_is_taken_is_a_typed_exception(told) -> None:
    assert (told["again"]["name"], told["again"]["typed"], told["again"]["status"]) == (
        "ResourceConflictException",
        True,
        409,
    )


def test_an_update_changes_what_runs_and_a_published_version_keeps_what_it_was(told) -> None:
    assert told["updated"] == "SUCCESS"
    assert (told["changed"], told["kept"]) == ("Bye é!", "Hello é")
    assert told["alias"] == f"{ARN}:live"


def test_a_function_can_be_read_and_its_package_downloaded(told) -> None:
    assert told["read"] == {"memory": 256, "tags": {"team": "a"}}
    assert told["downloaded"] is True


def test_a_value_that_the_model_forbids_is_refused_with_its_constraint(told) -> None:
    refused = told["refused"]
    assert (refused["name"], refused["status"]) == ("ValidationException", 400)
    assert (
        "'memorySize' failed to satisfy constraint: Member must have value greater than or equal to 128"
        in (refused["message"])
    )


def test_a_function_is_listed_until_it_is_deleted(told) -> None:
    assert "greet-from-js" in told["listed"]
    assert told["deleted"] == 204
    assert (told["gone"]["name"], told["gone"]["typed"]) == ("ResourceNotFoundException", True)
