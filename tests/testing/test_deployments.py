"""Functions that tests deploy."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from serverfull.testing.deployments import create, deploy, invoke, wait_until_ready, wait_until_settled, zipped
from serverfull.testing.hosts import ThreadHost

if TYPE_CHECKING:
    from collections.abc import Iterator

GREETING = {"app.py": "def handler(event, context): return f'Hello {event}'"}


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with ThreadHost({}) as host:
        yield host.client()


def test_the_same_files_give_the_same_package_with_the_modes_that_were_asked_for() -> None:
    files = {"bootstrap": b"#!/bin/sh\n", "lib/text.txt": "text"}
    made = zipped(files, executable=["bootstrap"])
    assert made == zipped(files, executable=["bootstrap"])
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "bootstrap": b"#!/bin/sh\n",
            "lib/text.txt": b"text",
        }
        assert [entry.external_attr >> 16 for entry in archive.infolist()] == [0o100755, 0o100644]


def test_a_function_can_be_called_when_it_is_deployed(client: Any) -> None:
    configuration = deploy(client, "greet", GREETING, MemorySize=512)
    assert (configuration["State"], configuration["MemorySize"]) == ("Active", 512)
    assert invoke(client, "greet", Payload='"Ann"') == "Hello Ann"


def test_a_failed_function_is_settled_and_never_ready(client: Any) -> None:
    assert create(client, "failed", GREETING, Runtime="java21")["State"] == "Pending"
    assert wait_until_settled(client, "failed")["State"] == "Failed"
    with pytest.raises(AssertionError, match="java21 needs a container"):
        wait_until_ready(client, "failed")


def test_an_update_that_fails_is_not_ready_though_the_function_runs(client: Any) -> None:
    deploy(client, "updated", GREETING)
    client.update_function_configuration(FunctionName="updated", Runtime="java21")
    assert wait_until_settled(client, "updated")["State"] == "Active"
    with pytest.raises(AssertionError, match="java21 needs a container"):
        wait_until_ready(client, "updated")
