"""AWS's limits as numbers with their units and sources.

Source of every figure: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html and, where that page is
silent, the answers that AWS gives.
"""

from __future__ import annotations

SYNC_PAYLOAD_BYTES = 6_291_456
"""Request payload of RequestResponse: 6 MB."""

ASYNC_PAYLOAD_BYTES = 1_048_576
"""Request payload of Event and of InvokeAsync: 1 MB."""

RESPONSE_PAYLOAD_BYTES = 6_291_556
"""Response payload of a synchronous invocation."""

LOG_TAIL_BYTES = 4_096
"""What ``X-Amz-Log-Type: Tail`` gives back, before base64."""

CLIENT_CONTEXT_BYTES = 3_583
"""``X-Amz-Client-Context`` after base64 decoding."""

ERROR_MESSAGE_BYTES = 262_144
"""An error message or a stack trace longer than this is cut, so that a hostile ``__str__`` costs nobody memory."""

DEFAULT_TIMEOUT = 3.0
"""Seconds a function may run when nothing says otherwise, as in AWS."""

MAX_TIMEOUT = 5_400.0
"""Seconds; the largest timeout that the AWS model knows."""

DEFAULT_MEMORY_MB = 128
MIN_MEMORY_MB = 128
MAX_MEMORY_MB = 32_768

DEFAULT_EPHEMERAL_MB = 512
MAX_EPHEMERAL_MB = 32_768
"""Of ``/tmp``; the most that the AWS model knows. It takes no less than the default."""

MAX_DESCRIPTION = 256
"""Characters."""

ZIPPED_PACKAGE_BYTES = 52_428_800
"""A deployment package that comes in the request itself, zipped: 50 MB."""

UNZIPPED_PACKAGE_BYTES = 262_144_000
"""A deployment package unzipped, together with the function's layers: 250 MB. Packages from S3 have no other limit."""

MANAGEMENT_REQUEST_BYTES = 70_167_211
"""A whole request of CreateFunction or UpdateFunctionCode. Not on that page: AWS's answer to larger ones names it."""

PACKAGE_ENTRIES = 100_000
"""Files, links and folders of a package. Ours, not AWS's: files without content would be free otherwise."""

PACKAGE_PATH_BYTES = 1_024
"""Path of an entry of a package, and the target of a link. Ours: far below what file systems take, far above need."""
