"""What tells one state of ``$LATEST`` from another: whether publishing it makes another version.

Called inside transactions, by whoever publishes and by whoever finds out which image a version is.
"""

from __future__ import annotations

from dataclasses import fields, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from serverfull.domain.json_functions import dumps

if TYPE_CHECKING:
    from serverfull.domain.deployed import FunctionVersion

# Everything else is content.
_NOT_CONTENT = frozenset(
    (
        "number",
        "state",
        "state_reason",
        "state_reason_code",
        "last_update_status",
        "last_update_status_reason",
        "last_update_status_reason_code",
        "last_modified",
        "revision_id",
        "published_from",
        "optimization",
        "unzipped_size",  # follows from the code
        *("s3_bucket", "s3_key", "s3_etag"),  # where it came from, and not what it is
        "resolved_image",  # counts as the image itself
    )
)


def content_of(version: FunctionVersion) -> str:
    """Give a digest of code and configuration, which differs where publishing them makes another version."""
    content = {each.name: getattr(version, each.name) for each in fields(version) if each.name not in _NOT_CONTENT}
    if version.resolved_image is not None:  # the same name may mean another image than before
        content["image_uri"] = version.resolved_image
    return sha256(dumps(content, sort_keys=True).encode()).hexdigest()


def with_image(version: FunctionVersion, image: str) -> FunctionVersion:
    """Give a version with the image that it turned out to be.

    One that was published before that was known is, all the same, what ``$LATEST`` then was.

    :param image: as ``repository@sha256:digest``.
    """
    found = replace(version, resolved_image=image)
    return replace(found, published_from=content_of(found)) if version.published_from else found
