"""The functions of the load workloads as they are deployed over the API; they know nothing of the server."""

from __future__ import annotations

import logging
from typing import Any

logging.getLogger().setLevel(logging.INFO)


def hello(event: Any, context: Any) -> str:
    return "hello"


def log(event: Any, context: Any) -> str:
    logging.getLogger().info("handled", extra={"order": 17})
    return "hello"
