"""Objects of buckets, as far as the host knows S3 at all."""

from __future__ import annotations

from typing import NamedTuple


class StoredObject(NamedTuple):
    """What was read of an object.

    :param content: whole, as it was under this ETag.
    :param etag: tells it from what the object was before and will be.
    """

    content: bytes
    etag: str


class SeenObject(NamedTuple):
    """What was seen of an object, without its content.

    :param etag: tells it from what the object was before and will be.
    :param size: bytes.
    :param changed: seconds since the epoch.
    """

    key: str
    etag: str
    size: int
    changed: float
