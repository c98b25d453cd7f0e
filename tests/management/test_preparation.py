"""Preparations that have failed: which are tried again, by whom, and what callers see of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from serverfull.domain.records import Partition
from serverfull.management import preparation
from serverfull.management.preparation import PreparationFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Partition("123456789012", "eu-west-1")
NO_PYTHON = PreparationFailed("Python 3.14 is not on this machine: install it", "InvalidRuntime")


@pytest.fixture
def client(deploying: Any) -> Iterator[Any]:
    deploying.preparing.failure = NO_PYTHON
    client = deploying.plane.client()
    client.create_function(**deploying.request())
    deploying.settle()
    assert client.get_function_configuration(FunctionName="hello")["State"] == "Failed"
    yield client
    client.close()


def retry(deploying: Any) -> bool:
    tried: bool = deploying.plane.run(deploying.preparations.retry(HERE, "hello", 0))
    return tried


def revision(client: Any) -> str:
    found: str = client.get_function_configuration(FunctionName="hello")["RevisionId"]
    return found


def test_what_the_machine_lacked_is_tried_again_by_the_next_host(deploying: Any, client: Any) -> None:
    deploying.preparing.failure = None
    deploying.preparations = deploying.make_preparations()
    deploying.plane.run(deploying.preparations.resume())
    deploying.settle()
    found = client.get_function_configuration(FunctionName="hello")
    assert (found["State"], found["LastUpdateStatus"], found.get("StateReason")) == ("Active", "Successful", None)
    begun = len(deploying.preparing.begun)
    deploying.plane.run(deploying.preparations.resume())
    deploying.settle()
    assert len(deploying.preparing.begun) == begun, "what has succeeded is not done again"


def test_a_failed_preparation_is_not_tried_again_at_once(deploying: Any, client: Any) -> None:
    begun = len(deploying.preparing.begun)
    assert not retry(deploying)
    assert len(deploying.preparing.begun) == begun


def test_a_preparation_that_is_tried_again_can_succeed(
    deploying: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "AGAIN_AFTER", 0.0)
    before = revision(client)
    deploying.preparations = deploying.make_preparations()
    assert retry(deploying)
    assert revision(client) == before, "the same failure is no news"
    deploying.preparing.failure = None
    assert retry(deploying)
    found = client.get_function_configuration(FunctionName="hello")
    assert (found["State"], found["LastUpdateStatus"]) == ("Active", "Successful")
    assert found["RevisionId"] != before


def test_who_asks_while_a_preparation_is_tried_again_waits_for_the_same_one(deploying: Any, client: Any) -> None:
    deploying.preparing.failure = None
    deploying.preparations = deploying.make_preparations()
    begun = len(deploying.preparing.begun)

    async def ask_twice() -> list[bool]:
        return await asyncio.gather(*(deploying.preparations.retry(HERE, "hello", 0) for _ in range(2)))

    assert deploying.plane.run(ask_twice()) == [True, True]
    assert len(deploying.preparing.begun) == begun + 1


def test_a_package_that_cannot_be_unpacked_is_not_tried_again(deploying: Any, client: Any) -> None:
    deploying.preparing.failure = PreparationFailed("It is no archive.", "InvalidZipFileException")
    client.update_function_code(FunctionName="hello", ZipFile=deploying.other)
    deploying.settle()
    begun = len(deploying.preparing.begun)
    deploying.preparations = deploying.make_preparations()
    deploying.plane.run(deploying.preparations.resume())
    deploying.settle()
    retry(deploying)
    assert len(deploying.preparing.begun) == begun
