"""``serverfull state``: look after the folder that a host keeps its state in."""

from __future__ import annotations

import sys
from pathlib import Path

import click

_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)


_EVENTS = click.option(
    "--events",
    metavar="DIR",
    type=_DIRECTORY,
    help="Where the events are that belong to it, if events.path names another folder than events in DIR.",
)


@click.group()
def state() -> None:
    """Back up or check the state of a host."""


@state.command()
@click.argument("directory", metavar="DIR", type=_DIRECTORY)
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@_EVENTS
def backup(directory: Path, file: Path, events: Path | None) -> int:
    """Write the state in DIR to FILE, a tar file that must not exist, with its events. The host may go on running.

    DIR may be a folder of events alone, too. To restore it, stop the host and unpack FILE into an empty folder. The
    events in it run again, also those that have been run since.

    \b
    serverfull state backup /var/lib/serverfull monday.tar
    mkdir -m 700 restored && tar -xf monday.tar -C restored
    """
    from serverfull.errors import StateUnusable
    from serverfull.storage.backup import back_up

    try:
        size = back_up(directory, file, events)
    except StateUnusable as wrong:
        return _failed(str(wrong))
    click.echo(f"{file}: {size} bytes")
    return 0


@state.command()
@click.argument("directory", metavar="DIR", type=_DIRECTORY)
@_EVENTS
def check(directory: Path, events: Path | None) -> int:
    """Read all of the state in DIR and say what is wrong with it; the exit code is 1 where something is.

    DIR may be a folder of events alone, too.
    It changes nothing, and the host may go on running.

    \b
    serverfull state check /var/lib/serverfull
    """
    from serverfull.errors import StateUnusable
    from serverfull.storage.checking import check as check_state

    try:
        report = check_state(directory, events)
    except StateUnusable as wrong:
        return _failed(str(wrong))
    if report.revision is not None:
        click.echo(f"the database is whole, its tables have revision {report.revision}")
    for kind, count in report.counts.items():
        click.echo(f"{kind}: {count}")
    for name, count in report.events.items():
        click.echo(f"events {name}: {count}")
    for problem in report.problems:
        click.echo(problem)
    if report.problems:
        return _failed(f"{len(report.problems)} of the records, packages or events are damaged; restore a backup")
    click.echo("everything can be read")
    return 0


def _failed(why: str) -> int:
    sys.stderr.write(f"Error: {why}\n")
    return 1
