"""What is sent, and which answer is right."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from benchmarks.busy import busy


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One kind of request.

    :param handler: the stem of the function's name in the servers under test.
    :param body: the bytes that every request carries.
    :param expected: the JSON value that the right answer holds.
    """

    name: str
    handler: str
    body: bytes
    expected: Any

    def is_right(self, answer: bytes) -> bool:
        """Say whether an answer is the right JSON; spacing is the server's own affair."""
        try:
            return bool(json.loads(answer) == self.expected)
        except ValueError:
            return False


def document(size: int) -> bytes:
    """Make a JSON document of exactly that many bytes: records of short strings, numbers and flags."""
    records: list[dict[str, Any]] = []
    spare = size - len(json.dumps({"orders": [], "pad": ""}))
    while True:
        number = len(records)
        record = {"id": number, "sku": f"sku-{number:05d}", "price": number * 1.25, "tags": ["a", "b"], "new": True}
        spare -= len(json.dumps(record)) + len(", ")
        if spare < 0:
            break
        records.append(record)
    missing = size - len(json.dumps({"orders": records, "pad": ""}))
    return json.dumps({"orders": records, "pad": "x" * missing}).encode()


def echo(name: str, size: int) -> Workload:
    body = document(size)
    return Workload(name=name, handler="echo", body=body, expected=json.loads(body))


def workloads() -> dict[str, Workload]:
    """Give every workload by its name."""
    hello = Workload(name="hello", handler="hello", body=b"{}", expected="hello")
    every = (
        hello,
        echo("echo1k", 1024),
        echo("echo100k", 100 * 1024),
        Workload(name="sleep", handler="sleep", body=b"{}", expected="hello"),
        Workload(name="cpu", handler="cpu", body=b"{}", expected=busy()),
        Workload(name="log", handler="log", body=b"{}", expected="hello"),
    )
    return {workload.name: workload for workload in every}
