"""How commands print lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])


def output_option(command: _Command) -> _Command:
    """Add ``--output table|json``."""
    return click.option(
        "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="How to print it."
    )(command)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align rows under a head; the last column is as wide as it is."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in (head, *rows)
    )
