"""``serverfull events`` and ``serverfull dlq``: the events that a host has, and those among them that were given up.

Both have the same commands. Events that ended with nobody to tell are what a dead-letter queue would have, so ``dlq``
is ``events`` without those that wait, run or are being delivered.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

import click

from serverfull.cli.connecting import client_of, connection_options
from serverfull.cli.options import not_empty
from serverfull.cli.tables import output_option, table

_PATH = "/_serverfull/events"
_PAGE = 500
_STATES = ("waiting", "running", "delivering", "ended")
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _function_option(command: _Command) -> _Command:
    return click.option("--function", type=not_empty, metavar="NAME", help="Of this function alone.")(command)


class _EventId(click.ParamType[str]):
    """The id of an event: a number, or a worker's number and that."""

    name = "ID"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch("([0-9]{1,4}-)?[0-9]{1,18}", value):
            self.fail(f"{value!r} is no id of an event, as `list` shows them", param, ctx)
        return value


def _chosen(command: _Command) -> _Command:
    """Add what says which events a command is about."""
    ids = click.argument("ids", metavar="[ID]...", nargs=-1, type=_EventId())
    everything = click.option("--all", "everything", is_flag=True, help="All of them, of --function where it is given.")
    return ids(everything(_function_option(command)))


class _Events:
    """The events of a host, and which of its workers did not answer when they were asked."""

    def __init__(self, flags: Mapping[str, Any]) -> None:
        self._client = client_of(flags)
        self.unreached: dict[int, str] = {}

    @property
    def endpoint(self) -> str:
        return self._client.endpoint

    def found(self, states: Sequence[str], function: str | None) -> list[dict[str, Any]]:
        """Give the events in some states, the oldest first."""
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            query = [*(("state", state) for state in states), ("after", after), ("limit", _PAGE)]
            if function is not None:
                query.append(("function", function))
            page = self._heard(self._client.send("GET", f"{_PATH}?{urlencode(query)}"))["Events"]
            found += page
            if len(page) < _PAGE:
                return sorted(found, key=lambda event: str(event["AcceptedAt"]))
            after = page[-1]["Id"]

    def show(self, event: str) -> dict[str, Any]:
        return self._client.send("GET", f"{_PATH}/{event}")

    def chosen(
        self, ids: Sequence[str], everything: bool, function: str | None, states: Sequence[str]
    ) -> Sequence[str]:
        """Give the ids of the events that a command is about.

        :raises click.UsageError: it is about none, or about some and all.
        """
        if bool(ids) == everything or (ids and function):
            raise click.UsageError("name events by their ids, or say --all (with --function NAME, if need be)")
        return ids or [event["Id"] for event in self.found(states, function)]

    def change(self, action: str, member: str, ids: Sequence[str]) -> int:
        """Have events changed; gives how many were."""
        pages = [ids[start : start + _PAGE] for start in range(0, len(ids), _PAGE)]
        answers = [self._client.send("POST", f"{_PATH}/{action}", {"Ids": list(page)}) for page in pages]
        return sum(int(self._heard(answer)[member]) for answer in answers)

    def _heard(self, answer: dict[str, Any]) -> dict[str, Any]:
        self.unreached |= {one["Worker"]: one["Reason"] for one in answer.get("Unreached", ())}
        return answer

    def remark(self, what: str) -> int:
        """Say which workers did not answer; gives the exit status that fits."""
        for number, reason in sorted(self.unreached.items()):
            sys.stderr.write(f"{what} those of worker {number}: {reason}. Try again in a moment.\n")
        return 1 if self.unreached else 0


def _said(events: _Events, output: str, member: str, count: int, ids: Sequence[str], everything: bool) -> int:
    click.echo(json.dumps({member: count}) if output == "json" else f"{count} {member.lower()}")
    status = events.remark(f"events were {member.lower()} without")
    if count < len(ids) and not everything and not status:
        sys.stderr.write(f"{len(ids) - count} were not there, or cannot be {member.lower()} as they are now\n")
        return 1
    return status


def _group(name: str, summary: str, states: Sequence[str]) -> click.Group:
    """Make the commands over the events in some states."""

    @click.group(name, help=summary)
    def group() -> None: ...

    @group.command("list")
    @_function_option
    @connection_options
    @output_option
    def list_events(function: str | None, output: str, **flags: Any) -> int:
        """List events, the oldest first."""
        events = _Events(flags)
        found = events.found(states, function)
        if output == "json":
            click.echo(json.dumps(found, indent=2))
        else:
            head = ("ID", "FUNCTION", "STATE", "AT", "ACCEPTED", "BYTES", "REQUEST", "WHY")
            click.echo(table(head, [_row(event) for event in found]))
        return events.remark("events are shown without")

    @group.command()
    @click.argument("event", metavar="ID", type=_EventId())
    @connection_options
    def show(event: str, **flags: Any) -> None:
        """Show an event as JSON, with its payload and the answer to its last attempt."""
        click.echo(json.dumps(_Events(flags).show(event), indent=2))

    @group.command()
    @_chosen
    @connection_options
    @output_option
    def redrive(ids: Sequence[str], everything: bool, function: str | None, output: str, **flags: Any) -> int:
        """Run events again that have ended, as if they were new.

        One that could not be delivered to a destination or a dead-letter queue is delivered again instead.
        """
        events = _Events(flags)
        chosen = events.chosen(ids, everything, function, ("ended",))
        count = events.change("redrive", "Redriven", chosen)
        return _said(events, output, "Redriven", count, chosen, everything)

    @group.command()
    @_chosen
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @connection_options
    @output_option
    def purge(ids: Sequence[str], everything: bool, function: str | None, yes: bool, output: str, **flags: Any) -> int:
        """Delete events that do not run just now."""
        events = _Events(flags)
        chosen = events.chosen(ids, everything, function, [state for state in states if state != "running"])
        if not yes:
            if not sys.stdin.isatty():
                raise click.UsageError("say --yes to delete events: there is no terminal to ask on")
            if not click.confirm(f"Delete {len(chosen)} events at {events.endpoint}?", err=True):
                sys.stderr.write("nothing was deleted\n")
                return 1
        count = events.change("purge", "Purged", chosen)
        return _said(events, output, "Purged", count, chosen, everything)

    return group


def _row(event: dict[str, Any]) -> Sequence[str]:
    name = event["Function"] + (f":{event['Qualifier']}" if event["Qualifier"] else "")
    why = ": ".join(part for part in (event["Condition"], event["Reason"]) if part)
    simple = (event["State"], event["At"], event["AcceptedAt"], str(event["PayloadBytes"]), event["RequestId"])
    return event["Id"], name, *simple, why


events = _group("events", "Look after the events of a host.", _STATES)
dlq = _group("dlq", "Look after events that were given up, with nobody to tell.", ("ended",))
