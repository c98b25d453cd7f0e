"""``POST /_serverfull/s3/notifications``: what S3 servers say of objects that have changed.

The body is the document of S3's event notifications, which MinIO and others send as a webhook too::

    {"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "a+b.zip"}}}]}

The host only looks at the objects sooner. Nothing of what is said of them is believed, so it does no harm that anybody
who reaches the host may say it. S3's own test message has no records.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote_plus
from uuid import uuid4

from aiohttp import web

from serverfull.api.connection import REQUEST_ID, error_response
from serverfull.api.invocations import read_body
from serverfull.domain.json_functions import dumps, loads
from serverfull.errors import InvalidParameterValue, RequestError

PATH = "/_serverfull/s3/notifications"

MOST = 1000
"""Records of one notification. S3 sends one; others send a few."""


MOST_BYTES = 1 << 20


def add_notifications(
    app: web.Application, notice: Callable[[str, str], bool], *, admit: Callable[[web.BaseRequest], str]
) -> None:
    """Add the path to an application.

    :param notice: looks at an object; tells whether the host follows it.
    :param admit: lets a request in and gives it its id, or raises a RequestError.
    """

    async def handler(request: web.Request) -> web.StreamResponse:
        try:
            request_id = admit(request)
            looked = sum(notice(*place) for place in set(_places(await read_body(request, MOST_BYTES, "notification"))))
        except RequestError as error:
            return error_response(error, request.get(REQUEST_ID) or str(uuid4()))
        headers = {"Cache-Control": "no-store", "x-amzn-RequestId": request_id}
        return web.Response(text=dumps({"Objects": looked}), content_type="application/json", headers=headers)

    app.router.add_post(PATH, handler)


def _places(body: bytes) -> Iterator[tuple[str, str]]:
    """Give bucket and key of every object that a notification names.

    :raises InvalidParameterValue: it is none.
    """
    try:
        document = loads(body)
        records = document.get("Records", ()) if isinstance(document, Mapping) else None
    except (ValueError, RecursionError):
        records = None
    if not isinstance(records, (list, tuple)) or len(records) > MOST:
        raise InvalidParameterValue(f"The body must be an S3 event notification with at most {MOST} Records.")
    for number, record in enumerate(records):
        try:
            yield _text(record["s3"]["bucket"]["name"]), unquote_plus(_text(record["s3"]["object"]["key"]))
        except (KeyError, TypeError):
            raise InvalidParameterValue(f"Records[{number}] names no bucket and no object in s3.") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
