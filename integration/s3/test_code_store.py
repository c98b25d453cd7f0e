"""The code store in S3, on a real server (rclone) and on an imitation of AWS's (moto)."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from itertools import count

import pytest

from serverfull.errors import InternalFailure
from serverfull.storage.s3 import S3CodeStore, S3Endpoint
from serverfull.testing.code_store_suite import CodeStoreSuite
from serverfull.testing.deployments import zipped

BUCKET = "packages"
PACKAGE = zipped({"app.py": "def handler(event, context): return event"})
NUMBERS = count()


@pytest.fixture(params=["rclone", "moto"])
def server(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def prefix():
    """A prefix of its own for each test."""
    return f"team/{next(NUMBERS)}"


@pytest.fixture
async def open_store(server, prefix, tmp_path):
    store = S3CodeStore(BUCKET, prefix, tmp_path / "cache", server.endpoint, recent=0)
    yield store
    await store.aclose()


@pytest.fixture
def store(open_store):
    return open_store


class TestS3CodeStore(CodeStoreSuite):
    @pytest.fixture
    def store(self, open_store):
        return open_store


async def test_packages_are_objects_under_their_sha256_below_the_prefix(store, server, prefix):
    sha256 = await store.put(PACKAGE)
    found = server.client.get_object(Bucket=BUCKET, Key=f"{prefix}/code/{sha256}.zip")
    assert found["Body"].read() == PACKAGE
    assert found["ContentType"] == "application/zip"


async def test_a_store_may_have_no_prefix(server, tmp_path):
    store = S3CodeStore(BUCKET, "", tmp_path, server.endpoint)
    sha256 = await store.put(PACKAGE)
    server.client.head_object(Bucket=BUCKET, Key=f"code/{sha256}.zip")
    await store.aclose()


async def test_another_host_runs_what_one_has_put(store, server, prefix, tmp_path):
    sha256 = await store.put(PACKAGE)
    other = S3CodeStore(BUCKET, f"/{prefix}/", tmp_path / "other", server.endpoint)
    tree = await other.tree(sha256)
    assert tree.is_relative_to(tmp_path / "other")
    assert [path.name for path in tree.iterdir()] == ["app.py"]
    await other.aclose()


async def test_a_url_downloads_without_credentials_and_for_one_object(store, server):
    url = await store.url(await store.put(PACKAGE), 60)
    other = await store.put(zipped({"other.py": "1"}))

    def get(url):
        with urllib.request.urlopen(url, timeout=15) as answer:
            return answer.read()

    assert url.startswith(server.endpoint.url)
    assert await asyncio.to_thread(get, url) == PACKAGE
    assert "X-Amz-Expires=60" in url
    if server.directory is not None:  # moto does not look at signatures
        with pytest.raises(urllib.error.HTTPError, match="403"):
            await asyncio.to_thread(get, url.replace(await store.put(PACKAGE), other))


async def test_a_sweep_spares_what_any_host_has_just_put_and_what_is_not_its_own(store, server, prefix, tmp_path):
    await store.put(PACKAGE)
    key = f"{prefix}/code/notes.txt"
    server.client.put_object(Bucket=BUCKET, Key=key, Body=b"not ours")
    patient = S3CodeStore(BUCKET, prefix, tmp_path / "patient", server.endpoint)
    assert await patient.sweep(set()) == 0
    assert await store.sweep(set()) == 1
    assert server.client.get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"not ours"
    await patient.aclose()


async def test_an_object_that_was_changed_is_not_run(store, server, prefix):
    sha256 = await store.put(PACKAGE)
    key = f"{prefix}/code/{sha256}.zip"
    server.client.delete_object(Bucket=BUCKET, Key=key)  # rclone may hang where an object is replaced at once
    server.client.put_object(Bucket=BUCKET, Key=key, Body=zipped({"app.py": "evil"}))
    for ask in (store.package, store.tree):
        with pytest.raises(InternalFailure, match="damaged"):
            await ask(sha256)


async def test_a_bucket_that_is_not_there_or_not_ours_is_a_failure_of_the_host(rclone, tmp_path):
    absent = S3CodeStore("absent", "", tmp_path / "1", rclone.endpoint)
    foreign = S3CodeStore(BUCKET, "", tmp_path / "2", rclone.as_somebody_else())
    for store in (absent, foreign):
        for work in (store.put(PACKAGE), store.package("0" * 64), store.tree("0" * 64), store.sweep(set())):
            with pytest.raises(InternalFailure, match="does not answer as it should"):
                await work
        await store.aclose()


async def test_a_store_without_credentials_is_a_failure_of_the_host(rclone, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    store = S3CodeStore(BUCKET, "", tmp_path, S3Endpoint(url=rclone.endpoint.url))
    for work in (store.put(PACKAGE), store.url("0" * 64, 60)):
        with pytest.raises(InternalFailure):
            await work
    await store.aclose()
