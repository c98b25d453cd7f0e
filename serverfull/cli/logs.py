"""``serverfull logs``: what a function wrote last, and what it goes on to write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import click

from serverfull.cli.client import Client
from serverfull.cli.connecting import client_of, connection_options
from serverfull.cli.options import not_empty, seconds
from serverfull.cli.tables import output_option

_TICK = 0.25
"""Seconds between two looks into a file that is followed."""

_LEAST_PATIENCE = 30.0
"""Seconds; while there is nothing new, the host sends an empty line every 10."""


@click.command()
@click.argument("name", type=not_empty)
@click.option("-f", "--follow", is_flag=True, help="Go on until the host ends, or Ctrl-C.")
@click.option("--since", type=seconds, metavar="DURATION", help="Leave out what is older.")
@click.option("--request-id", metavar="ID", type=not_empty, help="Leave out other invocations.")
@click.option(
    "--files",
    metavar="DIR",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Read the files of logging.files in that directory, without a host.",
)
@connection_options
@output_option
def logs(
    name: str, follow: bool, since: float | None, request_id: str | None, files: Path | None, output: str, **flags: Any
) -> None:
    """Print what a function wrote last.

    NAME is a function name or an ARN. A host keeps the newest 4 MB of the log of all its functions in memory, and with
    the setting logging.files as much of each function as that says; the whole log is on its standard output.

    \b
    serverfull logs hello --since 5m
    serverfull logs hello --follow
    serverfull logs hello --files /var/log/functions --request-id 8f507cfc-...
    """
    client = client_of(flags)
    if files is not None:
        lines = _from_files(files, client, name, follow, since, request_id)
    else:
        lines = _from_host(client, name, follow, since, request_id)
    for line in lines:
        text = line.strip()
        if text:
            click.echo(text if output == "json" else _readable(text))


def _from_host(client: Client, name: str, follow: bool, since: float | None, request_id: str | None) -> Iterator[str]:
    found = client.function(name)["Configuration"]
    function = found["FunctionName"]
    _, _, _, region, account, *_ = found["FunctionArn"].split(":")
    asked = {
        "follow": "1" if follow else None,
        "since": since,
        "request-id": request_id,
        "account": account,
        "region": region,
    }
    query = urlencode({key: value for key, value in asked.items() if value is not None})
    patient = replace(client, timeout=max(client.timeout, _LEAST_PATIENCE))
    for line in patient.lines(f"/_serverfull/logs/{quote(function, safe='')}?{query}"):
        yield line.decode("utf-8", "replace")


def _from_files(
    folder: Path, client: Client, name: str, follow: bool, since: float | None, request_id: str | None
) -> Iterator[str]:
    """Read without a host: of all accounts and regions that neither the name nor a setting leaves out.

    :raises click.ClickException: no function of that name has a log there.
    """
    import time

    from serverfull.domain.names import parse_function_reference
    from serverfull.invocation.files import FileLog
    from serverfull.invocation.recent import of_place, of_request

    reference = parse_function_reference(name)
    function = reference.name
    log = FileLog(folder)
    if not follow and not log.has(function):
        raise click.ClickException(f"{folder} has no log of a function {function}")
    lines, position = log.lines(function, None if since is None else time.time() - since)
    of_one = of_request(request_id)
    here = of_place(reference.account or client.account, reference.region or client.region)
    yield from filter(of_one, filter(here, lines))
    while follow:
        news, position = log.news(function, position)
        yield from filter(of_one, filter(here, news))
        if not news:
            time.sleep(_TICK)


def _readable(line: str) -> str:
    """Give a record as lines that each begin with its time; nothing in them controls a terminal."""
    from serverfull.invocation.sinks import lines_for_people

    record = json.loads(line)
    return "\n".join(f"{record['time']}  {part}" for part in lines_for_people(record["message"]))
