"""Computes: the fixed work of benchmarks/busy.py, which is packed beside this module, many times over."""

from __future__ import annotations

from typing import Any

from benchmarks.busy import busy


def compute(event: Any, context: Any) -> str:
    for _ in range(event["times"]):
        busy()
    return "hello"
