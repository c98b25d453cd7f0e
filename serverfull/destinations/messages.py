"""What several services call the same: the attributes of a message, and the tracing header."""

from __future__ import annotations

import re
from collections.abc import Mapping

from serverfull.domain.events import Delivery

_TRACE = re.compile(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}(;[A-Za-z]+=[!-:<-~]*)*", re.ASCII)

_LONGEST_TRACE = 500
"""Characters of a tracing header that EventBridge takes."""


def trace_header(delivery: Delivery) -> str | None:
    """Give the tracing header if services take it: callers may have sent anything, which must not cost the message."""
    trace = delivery.trace_id or ""
    return trace if len(trace) <= _LONGEST_TRACE and _TRACE.fullmatch(trace) else None


def message_attributes(delivery: Delivery) -> Mapping[str, Mapping[str, str]]:
    """Give the attributes of a delivery as both services take them."""
    return {
        name: {"DataType": "Number" if isinstance(value, int) else "String", "StringValue": str(value)}
        for name, value in delivery.attributes.items()
    }
