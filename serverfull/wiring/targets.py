"""TARGETs that are places elsewhere, by the scheme of their URLs: fetchers, with what reads these places for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from serverfull.errors import ConfigurationError, TargetNotFound

if TYPE_CHECKING:
    from serverfull.interfaces import Fetcher


def _from_s3(url: str) -> Fetcher:
    """Serve the functions of ``s3://bucket/prefix``.

    :raises TargetNotFound: it is no such place.
    :raises ExtraMissing: boto3 is not installed.
    """
    from serverfull.fetchers.s3 import S3Fetcher
    from serverfull.storage.buckets import S3Bucket
    from serverfull.storage.s3 import bucket_and_prefix

    try:
        bucket, prefix = bucket_and_prefix(url)
    except ConfigurationError as wrong:
        raise TargetNotFound(str(wrong)) from None
    return S3Fetcher(S3Bucket(bucket), prefix)


def _from_docker(url: str) -> Fetcher:
    """Serve container images, as what comes after ``docker://`` says.

    :raises TargetNotFound: it says nothing that names images.
    """
    from serverfull.fetchers.docker import DockerFetcher

    return DockerFetcher.of(url.removeprefix("docker://"))


ELSEWHERE: Mapping[str, Callable[[str], Fetcher]] = {"docker": _from_docker, "s3": _from_s3}
"""Gives the fetcher of a URL."""
