"""What publication does where S3 does not answer; what it does where S3 answers is in integration/s3."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from serverfull.domain.deployed import FUNCTIONS, DeployedFunction
from serverfull.domain.records import Partition
from serverfull.storage import publication as module
from serverfull.storage.publication import Publication
from serverfull.storage.s3 import S3Endpoint
from serverfull.storage.state import open_state

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
