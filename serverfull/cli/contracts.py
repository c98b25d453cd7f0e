"""``serverfull contracts``: what functions take, give back and raise, and whether that still is what was promised."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serverfull.cli.tables import table
from serverfull.errors import TargetInvalid

if TYPE_CHECKING:
    from serverfull.domain.functions import Function
    from serverfull.interfaces import Fetcher

Documents = Mapping[str, Any]


@click.command()
@click.argument("target", metavar="TARGET")
@click.option(
    "--output", type=click.Choice(["json", "table"]), default="json", show_default=True, help="How to print it."
)
@click.option("--write", type=click.Path(dir_okay=False), metavar="FILE", help="Write the contracts to this file.")
@click.option(
    "--check",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Compare with this file, written before, and name what breaks callers.",
)
def contracts(target: str, output: str, write: str | None, check: str | None) -> int:
    """Show what functions take, give back and raise.

    TARGET is what "serverfull serve" takes. The contracts are JSON Schema, by the functions' names. With --check the
    exit code is 1 where callers break: a result lost a field, an event needs a new one, an error or a function is gone.

    \b
    serverfull contracts app.py --write contracts.json
    serverfull contracts app.py --check contracts.json
    """
    committed = None if check is None else _read(check)  # before the target is imported, which may take long
    documents = _documents_of(target)
    if write is not None:
        _write(write, documents)
    if check is not None and committed is not None:
        return _compare(check, committed, documents)
    if write is None:
        click.echo(_text(documents) if output == "json" else _table(documents))
    return 0


def _documents_of(target: str) -> Documents:
    from serverfull.contracts.contract import contract_of, documents
    from serverfull.fetchers.targets import load_target

    functions = asyncio.run(_list(load_target(target)))
    try:
        return documents({name: contract_of(name, function) for name, function in functions.items()})
    except TypeError as unfit:
        raise TargetInvalid(f"{target} has a function without a contract: {unfit}") from None


async def _list(fetcher: Fetcher) -> Mapping[str, Function]:
    return await fetcher.list()


def _text(documents: Documents) -> str:
    return json.dumps(documents, indent=2, ensure_ascii=False)


def _write(file: str, documents: Documents) -> None:
    try:
        Path(file).write_text(_text(documents) + "\n", encoding="utf-8")
    except OSError as wrong:
        raise click.UsageError(f"the contracts cannot be written to {file}: {wrong.strerror}") from None


def _read(file: str) -> Documents:
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as wrong:
        raise click.UsageError(f"the contracts cannot be read from {file}: {wrong.strerror}") from None
    except (ValueError, RecursionError) as wrong:
        raise click.UsageError(f"{file} is not JSON: {wrong}") from None
    if not isinstance(found, dict):
        raise click.UsageError(f'{file} has no contracts: write them with "serverfull contracts TARGET --write {file}"')
    return found


def _compare(file: str, committed: Documents, today: Documents) -> int:
    from serverfull.contracts.changes import breaking_changes

    try:
        changes = breaking_changes(committed, today)
    except ValueError as wrong:
        raise click.UsageError(f"{file} does not hold contracts: {wrong}") from None
    for change in changes:
        click.echo(str(change))
    if changes:
        count = "1 change breaks" if len(changes) == 1 else f"{len(changes)} changes break"
        sys.stderr.write(f"Error: {count} those who call these functions as {file} says\n")
    return 1 if changes else 0


def _table(documents: Documents) -> str:
    rows = [
        [name, _kind(found["event"]), _kind(found["result"]), ", ".join(e["errorType"] for e in found["errors"])]
        for name, found in documents.items()
    ]
    return table(("NAME", "EVENT", "RESULT", "ERRORS"), rows)


def _kind(schema: Mapping[str, Any]) -> str:
    """Say in a word what a schema is about; the whole is for ``--output json``."""
    kind = schema.get("title") or schema.get("type") or schema.get("$ref", "").rpartition("/")[2]
    return str(kind) if kind else "anything" if not schema else "one of several"
