"""What is read of objects in S3 where the server is at fault: never half of one, never of two, and never elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from boto3.session import Session

from serverfull.errors import InternalFailure, InvalidParameterValue
from serverfull.storage.objects import S3Objects
from tests.storage.s3_stub import S3Stub


@pytest.fixture(scope="module")
def session() -> Session:
    """One for all tests: what a client is made of takes a third of a second to read."""
    return Session(aws_access_key_id="id", aws_secret_access_key="secret")


@pytest.fixture(autouse=True)
def one_session(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boto3.session.Session", lambda **_: session)


@pytest.fixture
async def stub() -> AsyncIterator[S3Stub]:
    async with S3Stub() as stub:
        yield stub


@pytest.fixture
async def objects(stub: S3Stub) -> AsyncIterator[S3Objects]:
    objects = S3Objects(stub.endpoint)
    yield objects
    await objects.aclose()


async def test_an_object_that_changes_while_it_is_read_is_read_again(stub: S3Stub, objects: S3Objects) -> None:
    stub.put("/b/k", b"half old, half new", etag="old")
    stub.after("GET", "/b/k", lambda: stub.put("/b/k", b"new", etag="new"))
    found = await objects.fetch_object("b", "k")
    assert (found.content, found.etag) == (b"new", "new")


async def test_an_object_that_never_stops_changing_is_refused(stub: S3Stub, objects: S3Objects) -> None:
    stub.put("/b/k", b"0", etag="0")
    for number in range(3):
        stub.after("GET", "/b/k", lambda number=number: stub.put("/b/k", b"n", etag=f"n{number}"))  # type: ignore[misc]
    with pytest.raises(InvalidParameterValue, match="PreconditionFailed"):
        await objects.fetch_object("b", "k")


async def test_a_content_that_ends_too_early_is_read_again_and_then_refused(stub: S3Stub, objects: S3Objects) -> None:
    stub.put("/b/k", b"whole", etag="e")
    stub.cut_off("/b/k", 1)
    assert (await objects.fetch_object("b", "k")).content == b"whole"
    stub.cut_off("/b/k", 100)
    with pytest.raises(InvalidParameterValue, match="PreconditionFailed"):
        await objects.fetch_object("b", "k")


@pytest.mark.parametrize("status", [301, 307])
async def test_a_redirect_to_another_host_is_not_followed(status: int, stub: S3Stub, objects: S3Objects) -> None:
    async with S3Stub() as other:
        other.put("/b/k", b"secret", etag="e")
        stub.redirect("/b/k", status, f"{other.endpoint.url}/b/k")
        with pytest.raises((InvalidParameterValue, InternalFailure)):
            await objects.fetch_object("b", "k")
        with pytest.raises((InvalidParameterValue, InternalFailure)):
            await objects.look("b", "k")
        assert other.requests == []
