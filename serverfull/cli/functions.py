"""The commands that show and delete the functions of a host: ``list``, ``get`` and ``delete``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click

from serverfull.cli.client import Client, path_of
from serverfull.cli.connecting import client_of, connection_options
from serverfull.cli.options import not_empty
from serverfull.cli.tables import output_option, table


@click.command("list")
@connection_options
@output_option
def list_functions(output: str, **flags: Any) -> None:
    """List the functions of a host.

    SOURCE says where each comes from. Those that another one of the same name hides, and those that cannot be served,
    are listed too, with the reason.
    """
    client = client_of(flags)
    functions = sorted(client.functions(), key=lambda function: str(function["FunctionName"]))
    if output == "json":
        click.echo(json.dumps(functions, indent=2))
        return
    survey = client.survey()
    sources = {each["FunctionName"]: each["Source"] for each in survey if "HiddenBy" not in each}
    keys = ("FunctionName", "Runtime", "Handler", "Timeout", "MemorySize")
    rows = [
        [*(str(each.get(key, "")) for key in keys), sources.get(each["FunctionName"], ""), each.get("Description", "")]
        for each in functions
    ]
    rows += [
        [each["FunctionName"], "", "", "", "", each["Source"], _why_not(each)]
        for each in survey
        if "HiddenBy" in each or "Failure" in each
    ]
    rows.sort(key=lambda row: row[0])
    if not survey:
        rows = [[*row[:-2], row[-1]] for row in rows]
    head = ("NAME", "RUNTIME", "HANDLER", "TIMEOUT", "MEMORY", *(("SOURCE",) if survey else ()), "DESCRIPTION")
    click.echo(table(head, rows))


def _why_not(found: Mapping[str, str]) -> str:
    """Say why a function that is there is not served."""
    return f"hidden by {found['HiddenBy']}" if "HiddenBy" in found else f"Failed: {found['Failure']}"


@click.command()
@click.argument("name", metavar="NAME[:QUALIFIER]", type=not_empty)
@connection_options
@output_option
def get(name: str, output: str, **flags: Any) -> None:
    """Show a function.

    NAME is a function name or an ARN, QUALIFIER a version or an alias. Environment variables are shown by their names;
    --output json shows all that GetFunction gives.
    """
    found = client_of(flags).function(name)
    if output == "json":
        click.echo(json.dumps(found, indent=2))
        return
    (first, *rows) = _rows(found)
    click.echo(table(first, rows))


def _rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    configuration = found["Configuration"]
    yield "name", configuration["FunctionName"]
    yield "arn", configuration["FunctionArn"]
    yield "version", configuration["Version"]
    yield "state", _state(configuration)
    yield "source", _source(found.get("Code", {}))
    simple = ("Runtime", "Handler", "Timeout", "MemorySize", "Description", "Role", "LastModified", "CodeSha256")
    for member in simple:
        if configuration.get(member) not in (None, ""):
            yield _spaced(member), str(configuration[member])
    yield "code size", f"{configuration.get('CodeSize', 0)} bytes"
    for label, names in (
        ("variables", configuration.get("Environment", {}).get("Variables", {})),
        ("layers", [layer["Arn"] for layer in configuration.get("Layers", ())]),
        ("tags", [f"{key}={value}" for key, value in found.get("Tags", {}).items()]),
    ):
        if names:
            yield label, " ".join(names)
    reserved = found.get("Concurrency", {}).get("ReservedConcurrentExecutions")
    if reserved is not None:
        yield "reserved concurrency", str(reserved)


def _source(code: Mapping[str, Any]) -> str:
    """Say where the code is; links that download it are long, and for programs."""
    place = str(code.get("ImageUri") or code.get("Location", ""))
    return " ".join([str(code.get("RepositoryType", "")), *([] if place.startswith("http") else [place])]).strip()


def _state(configuration: Mapping[str, Any]) -> str:
    """Say whether a function can be invoked, and what is the matter with it or with its last update."""
    state = str(configuration.get("State", ""))
    if configuration.get("StateReason"):
        state += f": {configuration['StateReason']}"
    update = configuration.get("LastUpdateStatus", "Successful")
    if update != "Successful" and configuration.get("State") == "Active":
        state += f", last update {update}: {configuration.get('LastUpdateStatusReason', '')}"
    return state


def _spaced(member: str) -> str:
    return "".join(f" {sign.lower()}" if sign.isupper() else sign for sign in member).strip()


@click.command()
@click.argument("name", metavar="NAME[:VERSION]", type=not_empty)
@click.option("--yes", is_flag=True, help="Do not ask.")
@connection_options
@output_option
def delete(name: str, yes: bool, output: str, **flags: Any) -> int:
    """Delete a function, or one version of it.

    NAME is a function name or an ARN. With a function go its versions, its aliases and all that belongs to it.
    """
    client = client_of(flags)
    if not yes and not _agreed(client, name):
        return 1
    client.send("DELETE", path_of(name))
    click.echo(json.dumps({"Deleted": name}) if output == "json" else f"{name}: deleted")
    return 0


def _agreed(client: Client, name: str) -> bool:
    if not sys.stdin.isatty():
        raise click.UsageError(f"say --yes to delete {name}: there is no terminal to ask on")
    client.function(name)  # before it asks about what is not there
    if click.confirm(f"Delete {name} at {client.endpoint}?", err=True):
        return True
    sys.stderr.write("nothing was deleted\n")
    return False
