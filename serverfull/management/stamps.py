"""Revision ids and timestamps that records get when they are written."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from serverfull.errors import PreconditionFailed


def new_revision() -> str:
    """Make a revision id."""
    return str(uuid.uuid4())


def check_revision(given: str | None, current: str, operation: str = "GetFunction/GetAlias") -> None:
    """Refuse a write that was meant for another revision.

    :param given: the RevisionId of the request; None matches every revision.
    :param operation: what the message tells the caller to call.
    :raises PreconditionFailed: in AWS's words.
    """
    if given is not None and given != current:
        raise PreconditionFailed(
            "The Revision Id provided does not match the latest Revision Id. "
            f"Call the {operation} API to retrieve the latest Revision Id"
        )


def timestamp() -> str:
    """Write the present moment as AWS writes LastModified, ``2026-11-21T04:30:00.000+0000``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"


def timestamp_seconds() -> str:
    """Write the present moment without a fraction, as some resources have it, ``2026-11-21T04:30:00+0000``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S+0000")
