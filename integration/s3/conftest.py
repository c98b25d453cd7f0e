"""S3 servers for this folder: rclone, which is a real one, and moto, which only imitates S3 but knows versions."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from boto3.session import Session
from botocore.config import Config

from integration.servers import INSTALL, started
from serverfull.storage.s3 import S3Endpoint

BUCKET = "packages"
HUGE = "huge.zip"
HUGE_BYTES = 1 << 40
"""Bytes of an object that takes no room and that nobody could download within a test."""


@dataclass(frozen=True)
class Server:
    """An S3 server that runs, with one bucket.

    :param client: owes nothing to the code under test.
    :param directory: where rclone keeps the objects as files; None for moto.
    """

    endpoint: S3Endpoint
    client: Any
    directory: Path | None = None

    def as_somebody_else(self) -> S3Endpoint:
        return replace(self.endpoint, secret_access_key="wrong")


def endpoint_at(url):
    return S3Endpoint(url=url, region="us-east-1", access_key_id="an-id", secret_access_key="a-secret")


def client_of(endpoint):
    return Session().client(
        "s3",
        endpoint_url=endpoint.url,
        region_name=endpoint.region,
        aws_access_key_id=endpoint.access_key_id,
        aws_secret_access_key=endpoint.secret_access_key,
        config=Config(request_checksum_calculation="when_required", response_checksum_validation="when_required"),
    )


def rclone_that_serves_s3():
    """Give the rclone on the PATH if it is new enough; Debian's is not."""
    path = shutil.which("rclone")
    if path is None:
        return None
    said = subprocess.run([path, "serve", "s3", "--help"], capture_output=True, text=True)
    return path if "--auth-key" in said.stdout else None


@pytest.fixture(scope="session")
def rclone(require, tmp_path_factory):
    path = rclone_that_serves_s3()
    require("rclone 1.65 or newer", path, INSTALL)
    directory = tmp_path_factory.mktemp("rclone")
    (directory / BUCKET).mkdir()
    with (directory / BUCKET / HUGE).open("wb") as file:  # before rclone starts: it remembers what is in a folder
        os.truncate(file.fileno(), HUGE_BYTES)
    # With ETags it reads all of a file before it answers.
    yield from serving(path, directory, tmp_path_factory.mktemp("cache"), "--etag-hash", "")


@pytest.fixture(scope="session")
def rclone_with_etags(rclone, tmp_path_factory):
    """Another one, of small objects."""
    directory = tmp_path_factory.mktemp("rclone")
    (directory / BUCKET).mkdir()
    yield from serving(rclone_that_serves_s3(), directory, tmp_path_factory.mktemp("cache"))


def serving(path, directory, cache, *flags):
    command = [path, "serve", "s3", "--addr", "127.0.0.1:0", "--auth-key", "an-id,a-secret", "--config", "/dev/null"]
    # Without its caches rclone hangs now and then where an object is replaced.
    command += ["--vfs-cache-mode", "writes", "--vfs-write-back", "0s"]
    command += ["--cache-dir", str(cache), *flags, str(directory)]
    with started(command, r"Starting s3 server on \[(http://[^/]+)/\]") as url:
        endpoint = endpoint_at(url)
        with closing(client_of(endpoint)) as client:
            yield Server(endpoint, client, directory)


@pytest.fixture(scope="session")
def moto(require):
    path = shutil.which("moto_server")
    require("moto's server", path, INSTALL)
    with started([path, "-H", "127.0.0.1", "-p", "0"], r"Running on (http://\S+)") as url:
        endpoint = endpoint_at(url)
        with closing(client_of(endpoint)) as client:
            client.create_bucket(Bucket=BUCKET)
            yield Server(endpoint, client)
