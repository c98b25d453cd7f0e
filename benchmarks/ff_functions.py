"""The functions that functions-framework serves while it is measured: written as its own documentation does."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.busy import busy

JSON = {"Content-Type": "application/json"}


def hello(request: Any) -> Any:
    return '"hello"', 200, JSON


def echo(request: Any) -> Any:
    return request.get_json()


def sleep(request: Any) -> Any:
    time.sleep(0.005)
    return '"hello"', 200, JSON


def cpu(request: Any) -> Any:
    return str(busy()), 200, JSON
