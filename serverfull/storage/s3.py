"""S3 as the code store of one or many hosts.

Any S3 server will do: it is spoken to through boto3, on threads, with SigV4, and with checksums only where S3 demands
them, because most servers that are not AWS's know none. boto3 is an extra (``s3``), imported when a client is made.

Packages are objects ``<prefix>/code/<sha256>.zip``; what is run is unpacked on each machine.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from serverfull.domain.checksums import is_sha256, sha256_of
from serverfull.errors import ConfigurationError, ExtraMissing, InternalFailure
from serverfull.interfaces import CodeStore
from serverfull.storage.code import RECENT
from serverfull.storage.durable import Threads, make_private
from serverfull.storage.trees import Trees

Result = TypeVar("Result")

ABSENT = frozenset(("NoSuchKey", "404", "NotFound"))
"""What S3 says where an object is not there; to HEAD it says no more than the status."""

READ_TIMEOUT = 60.0
"""Seconds that S3 may be silent, in the middle of a package too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Endpoint:
    """Where S3 is, and who we are there.

    :param url: such as ``http://127.0.0.1:9000``; None is AWS.
    :param region: None is what boto3 finds in its own configuration, ``us-east-1`` where that is nothing.
    :param access_key_id: None lets boto3 look for credentials as every AWS tool does.
    """

    url: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)


def bucket_and_prefix(url: str) -> tuple[str, str]:
    """Split ``s3://bucket/prefix``; the prefix has no slash at its ends and may be empty.

    :raises ConfigurationError: it is no such URL.
    """
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise ConfigurationError(f"{url!r} is no place in S3; it is written s3://bucket/prefix")
    return bucket, prefix.strip("/")


class S3Client:
    """boto3's client, made on the thread that first needs it; it may be used from many.

    It follows no redirect to another host.

    :param read_timeout: seconds that S3 may be silent.
    :param attempts: how often a call is made that fails for reasons that may pass.
    """

    def __init__(self, endpoint: S3Endpoint, *, read_timeout: float = READ_TIMEOUT, attempts: int = 3) -> None:
        self._endpoint = endpoint
        self._read_timeout = read_timeout
        self._attempts = attempts
        self._client: Any = None
        self._lock = threading.Lock()

    def get(self) -> Any:
        """Give the client.

        :raises ExtraMissing: boto3 is not installed.
        """
        with self._lock:
            if self._client is None:
                self._client = self._make()
            return self._client

    def _make(self) -> Any:
        require_boto3("S3")
        from boto3.session import Session
        from botocore.config import Config

        endpoint = self._endpoint
        session = Session(
            aws_access_key_id=endpoint.access_key_id,
            aws_secret_access_key=endpoint.secret_access_key,
            aws_session_token=endpoint.session_token,
            region_name=endpoint.region,
        )
        config = Config(
            signature_version="s3v4",
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"mode": "standard", "total_max_attempts": self._attempts},
            connect_timeout=min(5.0, self._read_timeout),
            read_timeout=self._read_timeout,
        )
        region = session.region_name or "us-east-1"
        return session.client("s3", endpoint_url=endpoint.url, region_name=region, config=config)

    def close(self) -> None:
        """Close its connections. Closing twice is fine."""
        with self._lock:
            if self._client is not None:
                self._client.close()


def require_boto3(what: str) -> None:
    if importlib.util.find_spec("boto3") is None:
        raise ExtraMissing(what, "boto3", "s3")


class S3CodeStore(CodeStore):
    """Keeps packages in a bucket; hosts that share it and its prefix run the same code.

    :param bucket: must exist.
    :param prefix: what the names of objects begin with; ``code/`` and the package's own name follow.
    :param cache: a folder of this machine for unpacked packages, made where it is missing.
    :param recent: seconds for which `sweep` spares a package after it was put, wanted or not, by whichever host.
    :raises ExtraMissing: boto3 is not installed.
    :raises OSError: the folder cannot be made, or is somebody else's.
    """

    def __init__(
        self, bucket: str, prefix: str, cache: Path, endpoint: S3Endpoint | None = None, *, recent: float = RECENT
    ) -> None:
        require_boto3(f"The code store s3://{bucket}/{prefix}")
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_private(cache / "unpacked")
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/code/".lstrip("/")
        self._client = S3Client(endpoint or S3Endpoint())
        self._threads = Threads("serverfull-code")
        self._trees = Trees(cache / "unpacked", self._threads)
        self._recent = recent

    async def put(self, package: bytes) -> str:
        """Keep a package; gives its SHA-256.

        :raises InternalFailure: S3 does not take it.
        """
        return await self._run(partial(self._put, package))

    def _put(self, package: bytes) -> str:
        sha256 = sha256_of(package)
        place = {"Bucket": self._bucket, "Key": self._key(sha256)}
        self._client.get().put_object(**place, Body=package, ContentType="application/zip")
        return sha256

    async def package(self, sha256: str) -> bytes:
        """Give a package's bytes.

        :raises KeyError: it is not there.
        :raises InternalFailure: S3 does not give it, or not as it was put.
        """
        return await self._run(partial(self._read, sha256))

    def _read(self, sha256: str) -> bytes:
        from botocore.exceptions import ClientError

        try:
            answer = self._client.get().get_object(Bucket=self._bucket, Key=self._key(sha256))
        except ClientError as error:
            if code_of(error) in ABSENT:
                raise KeyError(sha256) from None
            raise
        with closing(answer["Body"]) as body:
            package: bytes = body.read()
        if sha256_of(package) != sha256:
            raise InternalFailure(f"The stored package {sha256} is damaged. Deploy the function again.")
        return package

    def _key(self, sha256: str) -> str:
        if not is_sha256(sha256):
            raise KeyError(sha256)
        return f"{self._prefix}{sha256}.zip"

    async def tree(self, sha256: str) -> Path:
        """Give the folder on this machine that holds the unpacked package; fetched and unpacked now, once.

        :raises KeyError: the package is not there.
        :raises InvalidParameterValue: it cannot be unpacked.
        :raises InternalFailure: S3 does not give it.
        """
        if not is_sha256(sha256):
            raise KeyError(sha256)
        with self._failures():
            return await self._trees.get(sha256, self._read)

    async def url(self, sha256: str, seconds: int) -> str:
        """Give a presigned URL of S3; the credentials' own end is its end too.

        :raises InternalFailure: there are no credentials.
        """
        place = {"Bucket": self._bucket, "Key": self._key(sha256)}
        signed = await self._run(
            lambda: self._client.get().generate_presigned_url("get_object", Params=place, ExpiresIn=seconds)
        )
        return str(signed)

    async def sweep(self, keep: set[str]) -> int:
        """Delete every package below the prefix but these, and every folder of this machine but theirs.

        Packages that any host put in the last few minutes stay too (``recent``). Hosts with states of their own need
        prefixes of their own, or one deletes what another one runs.

        :raises InternalFailure: S3 does not do it; some packages may be gone.
        """
        return await self._run(partial(self._sweep, keep))

    def _sweep(self, keep: set[str]) -> int:
        client = self._client.get()
        kept, gone = set(keep), 0
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        for page in pages:
            oldest = _time_of(page) - timedelta(seconds=self._recent)
            for listed in page.get("Contents", ()):
                sha256 = listed["Key"].removeprefix(self._prefix).removesuffix(".zip")
                if not is_sha256(sha256) or sha256 in keep:
                    continue
                if self._recent and listed["LastModified"] > oldest:
                    kept.add(sha256)
                else:
                    client.delete_object(Bucket=self._bucket, Key=listed["Key"])
                    gone += 1
        self._trees.keep_only(kept)
        self._trees.delete_rest()
        return gone

    async def _run(self, work: Callable[[], Result]) -> Result:
        with self._failures():
            return await self._threads.run(work)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn what boto3 raises into a failure of the host; what it says is for the host's log alone."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise InternalFailure(
                f"The code store in S3 (bucket {self._bucket}) does not answer as it should."
            ) from error

    async def aclose(self) -> None:
        """Wait for what is under way. Closing twice is fine."""
        await self._threads.aclose()
        self._client.close()


def code_of(error: Any) -> str:
    """Give S3's own name of what it refused for."""
    return str(error.response["Error"].get("Code", ""))


def content_at(client: Any, bucket: str, key: str) -> bytes | None:
    """Read an object. None: there is none."""
    from botocore.exceptions import ClientError

    try:
        answer = client.get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if code_of(error) in ABSENT:
            return None
        raise
    with closing(answer["Body"]) as body:
        content: bytes = body.read()
        return content


def etag_of(answer: Any) -> str:
    """Tell an object from what it was before and will be: by its ETag, or where a server has none by time and size."""
    etag = str(answer.get("ETag", "")).strip('"')
    return etag or f"{answer['LastModified']:%Y-%m-%dT%H:%M:%S.%f}/{answer['ContentLength']}"


def _time_of(answer: Any) -> datetime:
    """Give the time of S3's own clock, which is that of its objects."""
    said = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(said) if said else datetime.now(UTC)
