"""``serverfull events`` and ``serverfull dlq``: the events that a host has, and those among them that were given up.

Both have the same commands. Events that ended with nobody to tell are what a dead-letter queue would have, so ``dlq``
is ``events`` without those that wait, run or are being delivered.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

import click

from serverfull.cli.client import Client
from serverfull.cli.connecting import client_of, connection_options
from serverfull.cli.options import not_empty
from serverfull.cli.tables import output_option, table

_PATH = "/_serverfull/events"
_PAGE = 500
_STATES = ("waiting", "running", "delivering", "ended")
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _function_option(command: _Command) -> _Command:
    return click.option("--function", type=not_empty, metavar="NAME", help="Of this function alone.")(command)


def _chosen(command: _Command) -> _Command:
    """Add what says which events a command is about."""
    ids = click.argument("ids", metavar="[ID]...", nargs=-1, type=click.IntRange(min=1))
    everything = click.option("--all", "everything", is_flag=True, help="All of them, of --function where it is given.")
    return ids(everything(_function_option(command)))


def _found(client: Client, states: Sequence[str], function: str | None) -> Iterator[dict[str, Any]]:
    after = 0
    while True:
        query = [*(("state", state) for state in states), ("after", after), ("limit", _PAGE)]
        if function is not None:
            query.append(("function", function))
        page = client.send("GET", f"{_PATH}?{urlencode(query)}")["Events"]
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1]["Id"]


def _chosen_ids(
    client: Client, ids: Sequence[int], everything: bool, function: str | None, states: Sequence[str]
) -> Sequence[int]:
    """Give the ids of the events that a command is about.

    :raises click.UsageError: it is about none, or about some and all.
    """
    if bool(ids) == everything or (ids and function):
        raise click.UsageError("name events by their ids, or say --all (with --function NAME, if need be)")
    return ids or [event["Id"] for event in _found(client, states, function)]


def _sent(client: Client, action: str, member: str, ids: Sequence[int]) -> int:
    pages = [ids[start : start + _PAGE] for start in range(0, len(ids), _PAGE)]
    return sum(int(client.send("POST", f"{_PATH}/{action}", {"Ids": list(page)})[member]) for page in pages)


def _said(output: str, member: str, count: int, ids: Sequence[int], everything: bool) -> int:
    click.echo(json.dumps({member: count}) if output == "json" else f"{count} {member.lower()}")
    if count < len(ids) and not everything:
        sys.stderr.write(f"{len(ids) - count} were not there, or cannot be {member.lower()} as they are now\n")
        return 1
    return 0


def _group(name: str, summary: str, states: Sequence[str]) -> click.Group:
    """Make the commands over the events in some states."""

    @click.group(name, help=summary)
    def group() -> None: ...

    @group.command("list")
    @_function_option
    @connection_options
    @output_option
    def list_events(function: str | None, output: str, **flags: Any) -> None:
        """List events, the oldest first."""
        found = list(_found(client_of(flags), states, function))
        if output == "json":
            click.echo(json.dumps(found, indent=2))
            return
        head = ("ID", "FUNCTION", "STATE", "AT", "ACCEPTED", "BYTES", "REQUEST", "WHY")
        click.echo(table(head, [_row(event) for event in found]))

    @group.command()
    @click.argument("event", metavar="ID", type=click.IntRange(min=1))
    @connection_options
    def show(event: int, **flags: Any) -> None:
        """Show an event as JSON, with its payload and the answer to its last attempt."""
        click.echo(json.dumps(client_of(flags).send("GET", f"{_PATH}/{event}"), indent=2))

    @group.command()
    @_chosen
    @connection_options
    @output_option
    def redrive(ids: Sequence[int], everything: bool, function: str | None, output: str, **flags: Any) -> int:
        """Run events again that have ended, as if they were new.

        One that could not be delivered to a destination or a dead-letter queue is delivered again instead.
        """
        client = client_of(flags)
        chosen = _chosen_ids(client, ids, everything, function, ("ended",))
        return _said(output, "Redriven", _sent(client, "redrive", "Redriven", chosen), chosen, everything)

    @group.command()
    @_chosen
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @connection_options
    @output_option
    def purge(ids: Sequence[int], everything: bool, function: str | None, yes: bool, output: str, **flags: Any) -> int:
        """Delete events that do not run just now."""
        client = client_of(flags)
        chosen = _chosen_ids(client, ids, everything, function, [state for state in states if state != "running"])
        if not yes:
            if not sys.stdin.isatty():
                raise click.UsageError("say --yes to delete events: there is no terminal to ask on")
            if not click.confirm(f"Delete {len(chosen)} events at {client.endpoint}?", err=True):
                sys.stderr.write("nothing was deleted\n")
                return 1
        return _said(output, "Purged", _sent(client, "purge", "Purged", chosen), chosen, everything)

    return group


def _row(event: dict[str, Any]) -> Sequence[str]:
    name = event["Function"] + (f":{event['Qualifier']}" if event["Qualifier"] else "")
    why = ": ".join(part for part in (event["Condition"], event["Reason"]) if part)
    simple = (event["State"], event["At"], event["AcceptedAt"], str(event["PayloadBytes"]), event["RequestId"])
    return str(event["Id"]), name, *simple, why


events = _group("events", "Look after the events of a host.", _STATES)
dlq = _group("dlq", "Look after events that were given up, with nobody to tell.", ("ended",))
