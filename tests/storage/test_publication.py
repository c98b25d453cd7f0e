"""What publication does where S3 does not answer; what it does where S3 answers is in integration/s3."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serverfull.domain.changes import FunctionChanged
from serverfull.domain.deployed import ALIASES, FUNCTIONS, VERSIONS, Alias, DeployedFunction, FunctionVersion
from serverfull.domain.function_documents import DocumentAlias, FunctionDocument, parse_document
from serverfull.domain.layers import LAYER_VERSIONS, LayerVersion, layer_arn
from serverfull.domain.manifests import Manifest
from serverfull.domain.publication import PUBLISHED_FUNCTIONS, PublishedFunction
from serverfull.domain.records import Kind, Partition
from serverfull.interfaces import Records, StateStore
from serverfull.storage import publication as module
from serverfull.storage.publication import Publication
from serverfull.storage.s3 import S3Endpoint
from serverfull.storage.state import open_state
from tests.storage.s3_stub import S3Stub

HERE = Partition("123456789012", "eu-west-1")


async def test_a_host_that_ends_does_not_wait_for_a_server_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSING", 0.2)
    called, over = asyncio.Event(), asyncio.Event()

    async def never_answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.set()
        await over.wait()
        writer.close()

    state = await open_state(tmp_path)
    await state.write(HERE, lambda records: records.insert(FUNCTIONS, DeployedFunction(name="f")))
    server = await asyncio.start_server(never_answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    endpoint = S3Endpoint(url=url, access_key_id="an-id", secret_access_key="a-secret")
    publication = Publication(state, "bucket", "prefix", None, endpoint)
    await publication.start()
    async with asyncio.timeout(20):
        await called.wait()
    began = time.monotonic()
    await publication.aclose()
    assert time.monotonic() - began < 10  # S3 itself would be waited for for a minute, three times
    await publication.aclose()
    server.close()
    over.set()
    await asyncio.to_thread(publication._thread._thread.join, 20)  # its work fails now, and so it ends
    await state.aclose()


LATEST = FunctionVersion(
    function="f",
    role="a-role",
    handler="app.handler",
    runtime="python3.12",
    environment={"STAGE": "test"},
    code_sha256="ab" * 32,
    code_size=100,
    settings={"Layers": [{"Arn": layer_arn("common", HERE, 3)}], "EphemeralStorage": {"Size": 1024}},
    last_modified="2026-01-01T00:00:00.000+0000",
    revision_id="r",
)
LAYER = LayerVersion(
    layer="common", number=3, code_sha256="cd" * 32, code_size=1, created="2026-01-01T00:00:00.000+0000"
)
OLD, NEW = "/b/p/functions/123456789012/eu-west-1/f.json", "/b/p/123456789012/eu-west-1/f/function.json"


class Published:
    """A state, and what is published of it."""

    def __init__(self, stub: S3Stub, state: StateStore) -> None:
        self.stub, self.state = stub, state
        self.publication = Publication(state, "b", "p", None, stub.endpoint)

    async def write(self, *records: tuple[Kind[Any], Any]) -> None:
        def work(kept: Records) -> None:
            for kind, record in records:
                kept.delete(kind, *kind.key_of(record))
                kept.insert(kind, record)

        await self.state.write(HERE, work)
        self.publication.changed(FunctionChanged(HERE, "f"))

    async def document(self, accept: Callable[[FunctionDocument], bool]) -> FunctionDocument:
        async with asyncio.timeout(20):
            while True:
                content = self.stub.content(NEW)
                if content is not None and accept(document := parse_document(content, NEW)):
                    return document
                await asyncio.sleep(0.01)


@pytest.fixture
async def published() -> AsyncIterator[Published]:
    state = await open_state(None)
    async with S3Stub() as stub:
        published = Published(stub, state)
        yield published
        await published.publication.aclose()
    await state.aclose()


async def test_what_an_older_host_published_is_upgraded_to_the_layout_that_fetchers_read(published: Published) -> None:
    published.stub.put(OLD, b"{}", "old")
    await published.write(
        (FUNCTIONS, DeployedFunction(name="f", tags={"team": "blue"}, reserved_concurrency=7, recursive_loop="Allow")),
        (VERSIONS, LATEST),
        (VERSIONS, replace(LATEST, number=1, log_format="JSON")),
        (VERSIONS, replace(LATEST, number=2, state="Pending")),
        (LAYER_VERSIONS, LAYER),
        (ALIASES, Alias(function="f", name="live", version="1", weights={"$LATEST": 0.25}, revision_id="r")),
        (ALIASES, Alias(function="f", name="soon", version="2", revision_id="r")),
        (PUBLISHED_FUNCTIONS, PublishedFunction(name="f", digest="of the old document")),
    )
    await published.publication.start()
    document = await published.document(lambda _: True)
    async with asyncio.timeout(20):
        while True:
            if published.stub.content(OLD) is None:
                break
            await asyncio.sleep(0.01)
    latest = document.versions["$LATEST"]
    assert (latest.key, latest.sha256, latest.size) == (f"code/{'ab' * 32}.zip", "ab" * 32, 100)
    assert latest.manifest == Manifest(
        handler="app.handler",
        runtime="python3.12",
        timeout=3,
        memory_size=128,
        environment={"STAGE": "test"},
        layers=(f"code/{'cd' * 32}.zip",),
        ephemeral_mb=1024,
        architecture="x86_64",
        tags={"team": "blue"},
        reserved_concurrency=7,
        recursive_loop="Allow",
    )
    assert set(document.versions) == {"$LATEST", "1"}  # of what can be run
    assert document.versions["1"].manifest.log_format == "JSON"
    assert document.aliases == {"live": DocumentAlias(version="1", weights={"$LATEST": 0.25})}


async def test_a_failed_update_leaves_what_is_published_of_latest_and_not_the_rest(published: Published) -> None:
    await published.write(
        (FUNCTIONS, DeployedFunction(name="f")), (VERSIONS, LATEST), (VERSIONS, replace(LATEST, number=1))
    )
    await published.publication.start()
    await published.document(lambda _: True)
    failed = replace(LATEST, handler="app.new", last_update_status="Failed")
    alias = Alias(function="f", name="live", version="1", revision_id="r")
    await published.write((VERSIONS, failed), (ALIASES, alias))
    document = await published.document(lambda found: "live" in found.aliases)
    assert document.versions["$LATEST"].manifest.handler == "app.handler"
    await published.write((VERSIONS, replace(failed, last_update_status="Successful")))
    await published.document(lambda found: found.versions["$LATEST"].manifest.handler == "app.new")
