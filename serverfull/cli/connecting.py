"""Which host the commands call, and as whom: their shared flags, and the client made from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from serverfull.cli.client import Client
from serverfull.cli.options import config_option, loaded, seconds, setting_option

_Command = TypeVar("_Command", bound=Callable[..., Any])

endpoint_option = setting_option("client.endpoint", text="URL of the host.")
timeout_option = setting_option("client.timeout", seconds, text="How long to wait for the answer.")
region_option = click.option(
    "--region", "functions__region", default=None, help="Region of the functions.  [default: the host's own]"
)


def connection_options(command: _Command) -> _Command:
    """Add the flags that say which host a command calls; their values are what `client_of` takes."""
    return endpoint_option(region_option(timeout_option(config_option(command))))


def client_of(flags: Mapping[str, Any]) -> Client:
    """Make a client from flags, environment and settings file.

    Account and region are the host's own unless one of these says otherwise.

    :raises ConfigurationError: one of them is malformed.
    """
    found = loaded(flags)
    client, functions = found.settings.client, found.settings.functions
    account = functions.account if found.origins["functions.account"] != "default" else ""
    region = functions.region if account or found.origins["functions.region"] != "default" else ""
    return Client(client.endpoint.rstrip("/"), client.timeout, account, region)
