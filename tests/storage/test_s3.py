"""What of S3 needs no server; integration/s3 has the rest."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from serverfull.errors import ConfigurationError, ExtraMissing, InternalFailure, InvalidParameterValue
from serverfull.storage.objects import S3Objects
from serverfull.storage.s3 import S3CodeStore, S3Endpoint, bucket_and_prefix


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [("s3://b", "b", ""), ("s3://b/", "b", ""), ("s3://b/p", "b", "p"), ("s3://b/p/q/", "b", "p/q")],
)
def test_a_place_in_s3_is_a_bucket_and_a_prefix(url: str, bucket: str, prefix: str) -> None:
    assert bucket_and_prefix(url) == (bucket, prefix)


@pytest.mark.parametrize("url", ["", "s3:", "s3://", "s3:///p", "http://b/p", "b/p"])
def test_what_is_no_place_in_s3_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="s3://bucket/prefix"):
        bucket_and_prefix(url)


def test_secrets_are_not_shown() -> None:
    endpoint = S3Endpoint(access_key_id="id", secret_access_key="hidden-one", session_token="hidden-two")
    assert "hidden" not in repr(endpoint)


async def test_without_boto3_it_is_said_which_extra_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ExtraMissing, match=r"The code store s3://bucket/p needs boto3.*serverfull\[s3\]"):
        S3CodeStore("bucket", "p", tmp_path)
    objects = S3Objects()
    with pytest.raises(InvalidParameterValue, match=r"serverfull\[s3\]"):
        await objects.fetch_object("bucket", "key")
    await objects.aclose()


async def test_a_server_that_is_not_there_is_a_failure_of_the_host(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        endpoint = S3Endpoint(url=url, access_key_id="id", secret_access_key="secret")
        objects, store = S3Objects(endpoint), S3CodeStore("bucket", "", tmp_path, endpoint)
        with pytest.raises(InternalFailure, match="S3 cannot be reached"):
            await objects.fetch_object("bucket", "key")
        with pytest.raises(InternalFailure, match="bucket"):
            await store.put(b"package")
        await objects.aclose()
        await store.aclose()
