"""The group of all commands. It knows their names and summaries, so that ``serverfull --help`` imports none of them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType

import click

_COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "serve": ("serving:serve", "Serve functions behind the Lambda API."),
        "dev": ("development:dev", "Serve functions as they are edited."),
        "lambda": ("native:run_lambda", "Run one function as a native AWS Lambda."),
        "build": ("native:build", "Build what runs one function on AWS Lambda."),
        "invoke": ("calling:invoke", "Invoke a function."),
        "deploy": ("deploying:deploy", "Deploy a directory as a function."),
        "list": ("functions:list_functions", "List the functions of a host."),
        "get": ("functions:get", "Show a function."),
        "delete": ("functions:delete", "Delete a function, or one version of it."),
        "logs": ("logs:logs", "Print what a function wrote last."),
        "events": ("events:events", "Look after the events of a host."),
        "dlq": ("events:dlq", "Look after events that were given up, with nobody to tell."),
        "contracts": ("contracts:contracts", "Show what functions take, give back and raise."),
        "status": ("calling:status", "Say whether a host is up, and what it is."),
        "wait": ("calling:wait", "Wait until a host is ready."),
        "doctor": ("doctor:doctor", "Show what this machine can run, and why not."),
        "state": ("state:state", "Back up or check the state of a host."),
        "config": ("configuration:config", "Show the settings."),
        "completion": ("completion:completion", "Print the completion script of a shell."),
    }
)


class _LazyGroup(click.Group):
    """Imports the module of a command when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"serverfull.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in _COMMANDS:
            ctx.fail(f"there is no command {args[0]!r}{_hint(args[0])}")
        return super().resolve_command(ctx, args)


def _hint(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name, _COMMANDS, 1)
    return f"; did you mean {close[0]}?" if close else ""


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from serverfull import __version__

    click.echo(f"serverfull {__version__}")
    ctx.exit()


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)
def application() -> None:
    """Run AWS Lambda functions on your own machines, behind the Lambda API."""
