"""Where the services are that records and dead letters go to, and who the host is there: the settings ``destinations``.

The host calls nothing that these settings do not name: neither AWS, for which its user may have credentials, nor what
``AWS_ENDPOINT_URL`` says, which is for programs that call the host. What functions of this host themselves reach AWS
with is another thing (`serverfull.runtimes.aws_access`).

AWS: https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from serverfull.errors import ConfigurationError, ExtraMissing

if TYPE_CHECKING:
    from serverfull.config import DestinationSettings

AWS = "aws"
"""Stands for AWS's own endpoint of a service."""

SERVICES: Mapping[str, str] = MappingProxyType({"SQS": "sqs", "SNS": "sns", "EVENTBRIDGE": "events", "S3": "s3"})
"""What the settings call the services, and what ARNs and boto3 do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a service is, and who we are there.

    :param service: as boto3 calls it.
    :param url: None is AWS.
    :param profile: of the files of the host's user; None lets boto3 choose.
    :param access_key_id: None lets boto3 look for credentials as every AWS tool does.
    :param timeout: seconds for an answer.
    """

    service: str
    url: str | None
    profile: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    timeout: float = 10.0


def endpoints_of(settings: DestinationSettings) -> dict[str, Endpoint]:
    """Give the endpoints that there are, by the service's name in ARNs.

    :raises ConfigurationError: a service has two, or one half of the credentials is missing.
    :raises ExtraMissing: there are some, and boto3 is not installed.
    """
    urls = dict.fromkeys(SERVICES, settings.endpoint_url) | _urls(settings.endpoints)
    found = {SERVICES[name]: _endpoint(SERVICES[name], url, settings) for name, url in urls.items() if url}
    if found and importlib.util.find_spec("boto3") is None:
        raise ExtraMissing("destinations.endpoint_url or destinations.endpoints", "boto3", "destinations")
    if bool(settings.access_key_id) != bool(settings.secret_access_key):
        raise ConfigurationError("destinations.access_key_id and destinations.secret_access_key are set together")
    return found


def _urls(endpoints: tuple[str, ...]) -> dict[str, str]:
    urls: dict[str, str] = {}
    for name, _, url in (endpoint.partition("=") for endpoint in endpoints):
        if name.upper() in urls:
            raise ConfigurationError(f"destinations.endpoints has two URLs for {name.upper()}")
        urls[name.upper()] = url
    return urls


def _endpoint(service: str, url: str, settings: DestinationSettings) -> Endpoint:
    return Endpoint(
        service=service,
        url=None if url == AWS else url,
        profile=settings.profile or None,
        access_key_id=settings.access_key_id or None,
        secret_access_key=settings.secret_access_key or None,
        session_token=settings.session_token or None,
        timeout=settings.timeout,
    )
