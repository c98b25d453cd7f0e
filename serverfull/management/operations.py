"""What the operations of every resource look like to the type checker; nothing here exists when a host runs.

Each operation takes its request as `types_boto3_lambda` types it, so the names of members are checked. Answers are of
its types where these fit; the others are `Response`, because its types of whole answers want the metadata that boto3
adds, and none of its types take None for what is absent. Tests compare every answer with the AWS model.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from serverfull.domain.names import RequestScope

Request: TypeAlias = Mapping[str, Any]
"""A request, for what several operations share."""

Response: TypeAlias = dict[str, Any]
"""An answer by the model's member names; members that are None are left out of what is sent."""

Operations: TypeAlias = Mapping[str, Callable[[Any, RequestScope], Awaitable[Mapping[str, Any]]]]
"""What runs operations, by their names in the AWS model, each with the type of request that is its own."""
