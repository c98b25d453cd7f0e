"""Functions that lie in a bucket, on a server that does what it is told; integration/s3 has real ones."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from boto3.session import Session

from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.domain.functions import Function
from serverfull.domain.records import Partition
from serverfull.domain.source_code import SourceCode
from serverfull.errors import FunctionNotReady, NotFoundError, SourceUnavailable
from serverfull.fetchers import s3, s3_folders
from serverfull.fetchers.s3 import S3Fetcher
from serverfull.storage import buckets
from serverfull.storage.buckets import S3Bucket
from serverfull.testing.deployments import zipped
from serverfull.testing.fetcher_suite import FetcherSuite, surroundings
from tests.storage.s3_stub import S3Stub

DEADLINE = 20.0
HERE = Partition("123456789012", "eu-west-1")


class Log:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda event, **fields: self.lines.append((level, event, fields))

    def said(self, text: str) -> int:
        return sum(text in event for _, event, _ in self.lines)


class Shop:
    """A bucket with functions below ``shop/``, and what serves them.

    :ivar changed: the functions that the host was told of.
    """

    def __init__(self, stub: S3Stub) -> None:
        self.stub = stub
        self.log = Log()
        self.changed: list[str] = []
        self._etags = iter(range(1000))
        self.fetcher = S3Fetcher(S3Bucket("b", stub.endpoint), "shop", refresh=0.01, absent=0.01)

    def put(self, key: str, content: Any) -> bytes:
        """Put an object there: a document, a package with this code, or bytes."""
        if isinstance(content, dict):
            content = json.dumps(content).encode()
        elif isinstance(content, str):
            content = zipped({"lambda_function.py": content})
        self.stub.put(f"/b/shop/{key}", content, etag=f"e{next(self._etags)}")
        return bytes(content)

    async def until(
        self, accept: Callable[[Function], bool], name: str = "f", qualifier: str | None = None
    ) -> Function:
        """Call until it is as it should be."""
        async with asyncio.timeout(DEADLINE):
            while True:
                function = await self.fetcher.fetch(name, qualifier)
                if accept(function):
                    return function
                await asyncio.sleep(0.01)

    async def wait_for_log(self, text: str, times: int = 1) -> None:
        async with asyncio.timeout(DEADLINE):
            while self.log.said(text) < times:
                with suppress(FunctionNotReady, NotFoundError):
                    await self.fetcher.fetch("f")
                await asyncio.sleep(0.01)


def handler_of(function: Function) -> DeployedHandler:
    assert isinstance(function.handler, DeployedHandler)
    return function.handler


def code_of(function: Function) -> str:
    return (handler_of(function).root / "lambda_function.py").read_text()


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
async def shop(stub: S3Stub) -> AsyncIterator[Shop]:
    shop = Shop(stub)
    await shop.fetcher.open(surroundings(logger=shop.log, changed=shop.changed.append))
    yield shop
    stub.held.set()
    await shop.fetcher.aclose()


class TestS3Fetcher(FetcherSuite):
    @pytest.fixture
    async def fetcher(self, stub: S3Stub) -> AsyncIterator[S3Fetcher]:
        shop = Shop(stub)
        shop.put("f/code.zip", "one")
        shop.put("of-everything/function.json", {"Handler": "a.b", "Runtime": "python3.12", "Code": {"S3Key": "x.zip"}})
        shop.put("x.zip", "two")
        version = {"Handler": "a.b", "Runtime": "python3.12", "Code": {"S3Key": "x.zip"}}
        published = {"Versions": {"1": version, "12": version}, "Aliases": {"live": {"FunctionVersion": "12"}}}
        shop.put("published/function.json", {**version, **published})
        yield shop.fetcher
        await shop.fetcher.aclose()


async def test_a_package_alone_is_a_function_with_the_usual_handler(shop: Shop) -> None:
    package = shop.put("f/code.zip", "one")
    await shop.fetcher.list()
    found = await shop.fetcher.fetch("f")
    source = handler_of(found).source
    assert isinstance(source, SourceCode)
    assert (source.location, source.size_bytes) == ("s3://b/shop/f/code.zip", len(package))
    assert source.sha256 == base64.b64encode(sha256(package).digest()).decode()
    assert handler_of(found).name == "lambda_function.lambda_handler"
    assert code_of(found) == "one"
    assert shop.fetcher.source_of("f") == "s3"


async def test_a_document_says_what_a_function_is_with_versions_aliases_and_layers(shop: Shop) -> None:
    shop.put("f/code.zip", "latest")
    shop.put("old.zip", "old")
    shop.put("layers/common.zip", "layer")
    of_versions = {"Handler": "a.b", "Runtime": "python3.12", "Code": {"S3Key": "old.zip"}}
    document = {
        "Timeout": 7,
        "Tags": {"team": "blue"},
        "Layers": ["layers/common.zip"],
        "Versions": {"1": {**of_versions, "Timeout": 5}, "2": of_versions},
        "Aliases": {
            "live": {"FunctionVersion": "1"},
            "split": {"FunctionVersion": "1", "RoutingConfig": {"AdditionalVersionWeights": {"2": 0.5}}},
        },
    }
    shop.put("f/function.json", document)
    latest, first = await shop.fetcher.fetch("f"), await shop.fetcher.fetch("f", "1")
    assert (latest.timeout, latest.version, code_of(latest)) == (7, "$LATEST", "latest")
    assert [(layer / "lambda_function.py").read_text() for layer in handler_of(latest).layers] == ["layer"]
    assert (first.timeout, first.version, code_of(first), dict(first.tags)) == (5, "1", "old", {"team": "blue"})
    assert await shop.fetcher.fetch("f", "live") is first
    assert {(await shop.fetcher.fetch("f", "split")).version for _ in range(100)} == {"1", "2"}
    for unknown in ("3", "dead"):
        with pytest.raises(NotFoundError):
            await shop.fetcher.fetch("f", unknown)
    del document["Versions"]["2"], document["Aliases"]["split"]  # type: ignore[attr-defined]
    document["Aliases"]["live"] = {"FunctionVersion": "$LATEST"}  # type: ignore[index]
    shop.put("f/function.json", document)
    await shop.until(lambda found: found.version == "$LATEST", qualifier="live")
    with pytest.raises(NotFoundError):
        await shop.fetcher.fetch("f", "2")
    assert shop.changed == ["f"]


async def test_what_belongs_to_an_account_is_for_that_one_and_hides_what_is_everybodys(shop: Shop) -> None:
    shop.put("f/code.zip", "everybody")
    shop.put("g/code.zip", "everybody")
    shop.put("123456789012/eu-west-1/f/code.zip", "own")
    here, there = shop.fetcher.at(HERE), shop.fetcher.at(Partition("210987654321", "eu-west-1"))
    own = await here.fetch("f")
    assert (code_of(own), handler_of(own).region) == ("own", "eu-west-1")
    assert code_of(await there.fetch("f")) == "everybody"
    assert await here.fetch("g") is await shop.fetcher.fetch("g")
    assert {name: code_of(await here.fetch(name)) for name in await here.list()} == {"f": "own", "g": "everybody"}
    assert sorted(await shop.fetcher.list()) == ["f", "g"]
    assert sorted(found.name for found in await here.survey()) == ["f", "g"]
    with pytest.raises(NotFoundError):
        await here.fetch("none")
    assert here.lacks("none")


async def test_a_changed_package_is_taken_up_while_calls_get_the_old_one(shop: Shop, stub: S3Stub) -> None:
    shop.put("f/code.zip", "one")
    first = await shop.fetcher.fetch("f")
    shop.put("f/code.zip", "two")
    assert await shop.fetcher.fetch("f") is first
    second = await shop.until(lambda found: code_of(found) == "two")
    assert await shop.fetcher.fetch("f") is second
    assert (first.generation, second.generation) == (1, 2)
    assert shop.changed == ["f"]
    assert code_of(first) == "one"  # what runs may go on
    shop.put("f/function.json", {"Timeout": 9})
    assert handler_of(await shop.until(lambda found: found.timeout == 9)).root == handler_of(second).root
    stub.delete("/b/shop/f/code.zip")
    stub.delete("/b/shop/f/function.json")
    with pytest.raises(NotFoundError):
        await shop.until(lambda _: False)
    assert shop.changed == ["f"] * 3


async def test_nothing_that_is_wrong_takes_the_place_of_what_runs(shop: Shop, stub: S3Stub) -> None:
    package = shop.put("f/code.zip", "one")
    told = base64.b64encode(sha256(package).digest()).decode()
    shop.put("f/function.json", {"CodeSha256": told, "CodeSize": len(package)})
    first = await shop.fetcher.fetch("f")
    refused = "function in S3 refused: it stays as it was"
    wrong: list[tuple[str, Any]] = [
        ("f/function.json", b"half a docu"),
        ("f/function.json", {"Timeout": 0}),
        ("f/function.json", {"Colour": "blue"}),
        ("f/function.json", {"CodeSize": 1}),
        ("f/function.json", {"LastModified": "yesterday"}),
        ("f/function.json", {"CodeSha256": base64.b64encode(bytes(32)).decode()}),
        ("f/function.json", {"Code": {"S3Key": "absent.zip"}}),
        ("f/function.json", {"Aliases": {"live": {"FunctionVersion": "7"}}}),
        ("f/function.json", {"Layers": ["absent.zip"]}),
    ]
    for times, (key, content) in enumerate(wrong, 1):
        shop.put(key, content)
        await shop.wait_for_log(refused, times)
    shop.put("f/function.json", {})
    await shop.until(lambda found: found is not first)  # as no hash is asked for any more
    shop.put("f/code.zip", b"no archive")
    await shop.wait_for_log(refused, len(wrong) + 1)
    assert code_of(await shop.fetcher.fetch("f")) == "one"
    looked = stub.requests.count(("GET", "/b/shop/f/code.zip"))
    for _ in range(5):
        await asyncio.sleep(0.02)
        await shop.fetcher.fetch("f")
    assert stub.requests.count(("GET", "/b/shop/f/code.zip")) == looked  # refused once, not again and again
    assert shop.log.said(refused) == len(wrong) + 1
    shop.put("f/code.zip", "healed")
    await shop.until(lambda found: code_of(found) == "healed")


async def test_a_function_that_never_could_be_served_says_why_and_is_served_when_it_can_be(shop: Shop) -> None:
    shop.put("f/function.json", {"Runtime": "cobol"})
    with pytest.raises(FunctionNotReady, match="is no runtime that this version knows"):
        await shop.fetcher.fetch("f")
    (found,) = await shop.fetcher.survey()
    assert found.name == "f"
    assert "cobol" in str(found.failure)
    assert not await shop.fetcher.list()
    shop.put("f/code.zip", b"no archive")
    shop.put("f/function.json", {"Handler": "lambda_function.go", "Runtime": "python3.12"})
    await shop.wait_for_log("function in S3 cannot be served", 2)
    with pytest.raises(FunctionNotReady, match="Could not unzip"):
        await shop.fetcher.fetch("f")
    shop.put("f/code.zip", "one")
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                assert code_of(await shop.fetcher.fetch("f")) == "one"
                return
            except FunctionNotReady:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("status", [403, 500, 503])
async def test_while_s3_fails_what_is_known_is_served_and_it_is_said_once(
    status: int, shop: Shop, stub: S3Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put("f/code.zip", "one")
    first = await shop.fetcher.fetch("f")
    with pytest.raises(NotFoundError):
        await shop.fetcher.fetch("none")
    stub.failing = status
    down = "functions in S3 cannot be looked up"
    await shop.wait_for_log(down)
    for _ in range(3):
        await asyncio.sleep(0.02)
        assert await shop.fetcher.fetch("f") is first
        with pytest.raises(NotFoundError):
            await shop.fetcher.fetch("none")
    with pytest.raises(SourceUnavailable, match=r"s3://b/shop/unseen/function.json cannot be read: S3 answers \w+"):
        await shop.fetcher.fetch("unseen")
    with pytest.raises(SourceUnavailable):
        await shop.fetcher.list()
    assert shop.log.said(down) == 1
    monkeypatch.setattr(s3, "_LATELY", 0.0)  # of the listing, which nobody asks for again
    stub.failing = 0
    await shop.wait_for_log("functions in S3 can be looked up again")


async def test_a_server_that_is_silent_keeps_no_call_of_what_is_known_waiting(
    shop: Shop, stub: S3Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "CLOSING", 0.1)
    shop.put("f/code.zip", "one")
    first = await shop.fetcher.fetch("f")
    here = shop.fetcher.at(HERE)
    assert await here.fetch("f") is first  # of an account that has none of its own
    stub.held.clear()
    for _ in range(5):
        await asyncio.sleep(0.02)
        async with asyncio.timeout(s3_folders.PATIENCE / 2):
            assert await shop.fetcher.fetch("f") is first
            assert await here.fetch("f") is first
    monkeypatch.setattr(s3_folders, "PATIENCE", 0.3)
    with pytest.raises(SourceUnavailable, match=r"was not seen within 0.3 s"):
        await shop.fetcher.fetch("unseen")


async def test_a_package_that_is_cut_off_or_changes_meanwhile_is_fetched_again(shop: Shop, stub: S3Stub) -> None:
    shop.put("f/code.zip", "one")
    stub.cut_off("/b/shop/f/code.zip", 1)
    assert code_of(await shop.fetcher.fetch("f")) == "one"
    shop.put("f/code.zip", "two")
    stub.after("HEAD", "/b/shop/f/code.zip", lambda: shop.put("f/code.zip", "three"))
    assert code_of(await shop.until(lambda found: code_of(found) != "one")) == "three"


async def test_packages_that_are_not_needed_any_more_are_deleted_from_the_machine(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_SWEEP_EVERY", 0.0)
    shop.put("f/code.zip", "one")
    old = handler_of(await shop.fetcher.fetch("f")).root
    shop.put("f/code.zip", "two")
    await shop.until(lambda found: code_of(found) == "two")
    async with asyncio.timeout(DEADLINE):
        while old.exists():
            await shop.fetcher.fetch("f")
            await asyncio.sleep(0.01)
    assert code_of(await shop.fetcher.fetch("f")) == "two"
    folder = handler_of(await shop.fetcher.fetch("f")).root
    await shop.fetcher.aclose()
    assert not folder.exists()


async def test_an_unchanged_function_costs_one_request_a_look_and_none_a_call(shop: Shop, stub: S3Stub) -> None:
    package = shop.put("f/code.zip", "one")
    digest = sha256(package).hexdigest()
    shop.put(f"code/{digest}.zip", package)
    told = base64.b64encode(sha256(package).digest()).decode()
    shop.put("f/function.json", {"Code": {"S3Key": f"code/{digest}.zip"}, "CodeSha256": told})
    await shop.fetcher.fetch("f")
    shop.fetcher.ages = s3_folders.Ages(3600.0, 3600.0, 3600.0)
    asked = len(stub.requests)
    folder = shop.fetcher.folders["f"]
    folder.due = 0.0
    first = await shop.fetcher.fetch("f")
    assert folder._looking is not None
    await folder._looking
    assert stub.requests[asked:] == [("GET", "/b/shop/f/function.json")]
    for _ in range(100):
        assert await shop.fetcher.fetch("f") is first
    assert len(stub.requests) == asked + 1


async def test_one_object_that_is_refused_for_ever_is_said_once(shop: Shop, stub: S3Stub) -> None:
    shop.put("f/code.zip", "one")
    shop.put("g/code.zip", "two")
    first, second = await shop.fetcher.fetch("f"), await shop.fetcher.fetch("g")
    stub.refuse("/b/shop/g/function.json")
    for _ in range(20):
        await asyncio.sleep(0.02)
        assert await shop.fetcher.fetch("f") is first
        assert await shop.fetcher.fetch("g") is second
    assert shop.log.said("functions in S3 can") == 1


async def test_a_redirect_to_another_host_is_not_followed(shop: Shop, stub: S3Stub) -> None:
    async with S3Stub() as other:
        other.put("/b/shop/f/code.zip", zipped({"lambda_function.py": "evil"}), etag="e")
        for name in ("code.zip", "function.json"):
            stub.redirect(f"/b/shop/f/{name}", 307, f"{other.endpoint.url}/b/shop/f/{name}")
        with pytest.raises(SourceUnavailable):
            await shop.fetcher.fetch("f")
        assert other.requests == []


async def test_what_hosts_that_were_killed_have_left_is_removed(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / "serverfull-packages-left"
    left.mkdir()
    shop.put("f/code.zip", "one")
    shop.put("f/function.json", {"Handler": "a.b", "Runtime": "python3.12"})
    assert handler_of(await shop.fetcher.fetch("f")).root.is_relative_to(tmp_path)
    assert not left.exists()
