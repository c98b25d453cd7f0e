"""``serverfull config``: what is set, and what can be set."""

from __future__ import annotations

import json
from typing import Any

import click

from serverfull.cli.options import config_option, loaded
from serverfull.cli.tables import output_option, table

_HIDDEN = "********"
"""Stands for a secret, whatever its length."""


@click.group()
def config() -> None:
    """Show the settings."""


@config.command()
@config_option
@output_option
def show(config: str | None, output: str) -> None:
    """Print each setting and where its value comes from. Secrets that somebody has set are not shown."""
    from serverfull.config.names import secret_keys

    found = loaded({"config": config})
    values = {key: _value(found.settings, key) for key in found.origins}
    values |= {key: _HIDDEN for key in secret_keys() if values[key] and found.origins[key] != "default"}
    if output == "json":
        described = {key: {"value": value, "origin": found.origins[key]} for key, value in values.items()}
        click.echo(json.dumps(described, indent=2))
    else:
        from serverfull.config.reference import shown

        rows = [(key, shown(value), found.origins[key]) for key, value in values.items()]
        click.echo(table(("SETTING", "VALUE", "FROM"), rows))


def _value(settings: object, key: str) -> Any:
    group, _, field = key.partition(".")
    return getattr(getattr(settings, group), field)


@config.command()
def reference() -> None:
    """Print the reference of all settings as Markdown."""
    from serverfull.config.reference import markdown

    click.echo(markdown(), nl=False)
