"""Function URLs: addresses under which HTTP requests reach a function without the Lambda API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serverfull.domain.records import Kind

PATH = "/_serverfull/urls/"
"""Where function URLs are on this host: ``PATH`` + url id + ``/``, and below it whatever the function makes of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionUrl:
    """The URL of a function or of an alias.

    :param qualifier: the alias; empty for the function itself, which means ``$LATEST``.
    :param url_id: 32 small letters and digits, which tell the URL from every other one of the host.
    :param auth_type: ``NONE`` or ``AWS_IAM``.
    :param cors: AWS's Cors as the caller gave it; empty: no answer has headers for other origins.
    :param invoke_mode: ``BUFFERED`` or ``RESPONSE_STREAM``.
    :param created: as AWS writes it, ``2026-11-21T04:30:00.000Z``; and when it was changed last.
    """

    function: str
    qualifier: str = ""
    url_id: str
    auth_type: str
    cors: Mapping[str, Any]
    invoke_mode: str = "BUFFERED"
    created: str
    last_modified: str


FUNCTION_URLS = Kind("function_urls", FunctionUrl, ("function", "qualifier"), indexed=("url_id",), of_function=True)


def function_url(base_url: str, url_id: str) -> str:
    """Write a function URL as a caller can reach it who reached the API under ``base_url``."""
    return f"{base_url}{PATH}{url_id}/"
