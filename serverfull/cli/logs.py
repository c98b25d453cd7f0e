"""``serverfull logs``: what a function wrote last, and what it goes on to write."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import click

from serverfull.cli.connecting import client_of, connection_options
from serverfull.cli.options import not_empty, seconds
from serverfull.cli.tables import output_option

_LEAST_PATIENCE = 30.0
"""Seconds; while there is nothing new, the host sends an empty line every 10."""


@click.command()
@click.argument("name", type=not_empty)
@click.option("-f", "--follow", is_flag=True, help="Go on until the host ends, or Ctrl-C.")
@click.option("--since", type=seconds, metavar="DURATION", help="Leave out what is older.")
@connection_options
@output_option
def logs(name: str, follow: bool, since: float | None, output: str, **flags: Any) -> None:
    """Print what a function wrote last.

    NAME is a function name or an ARN. A host keeps the newest 4 MB of the log of all its functions in memory; the whole
    log is on its standard output.

    \b
    serverfull logs hello --since 5m
    serverfull logs hello --follow
    """
    client = client_of(flags)
    function = client.function(name)["Configuration"]["FunctionName"]
    query = [*(["follow=1"] if follow else []), *([f"since={since}"] if since is not None else [])]
    patient = replace(client, timeout=max(client.timeout, _LEAST_PATIENCE))
    for line in patient.lines(f"/_serverfull/logs/{quote(function, safe='')}?{'&'.join(query)}"):
        text = line.decode().strip()
        if text:
            click.echo(text if output == "json" else _readable(text))


def _readable(line: str) -> str:
    """Give a record as lines that each begin with its time; nothing in them controls a terminal."""
    from serverfull.invocation.sinks import CONTROL

    record = json.loads(line)
    return "\n".join(f"{record['time']}  {part}" for part in record["message"].translate(CONTROL).split("\n"))
