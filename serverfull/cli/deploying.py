"""``serverfull deploy``: packs what it is given and has a host run it."""

from __future__ import annotations

import json
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from serverfull.cli.client import Client
from serverfull.cli.connecting import client_of, endpoint_option, region_option
from serverfull.cli.options import config_option, not_empty
from serverfull.cli.tables import output_option

if TYPE_CHECKING:
    from serverfull.cli.deployment import Result

_NAME = re.compile(r"[a-zA-Z0-9-_]{1,64}", re.ASCII)
_SIGNS = 36


def _pairs(_: click.Context, __: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """Read KEY=VALUE; click calls it."""
    pairs = {}
    for value in values:
        key, sign, rest = value.partition("=")
        if not sign or not key:
            raise click.BadParameter(f"{value!r} is not written KEY=VALUE")
        pairs[key] = rest
    return pairs


@click.command()
@click.argument("source", metavar="DIR", type=click.Path(exists=True, path_type=Path))
@click.option("--name", type=not_empty, help="Name of the function.  [default: that of DIR]")
@click.option("--handler", type=not_empty, help="MODULE.FUNCTION.  [default: the obvious one]")
@click.option("--runtime", type=not_empty, help="Such as python3.12.  [default: the Python of the host]")
@click.option("--env", multiple=True, metavar="KEY=VALUE", callback=_pairs, help="Environment variable; repeatable.")
@click.option("--timeout", type=click.IntRange(1), metavar="SECONDS", help="How long an invocation may take.")
@click.option("--memory-size", type=click.IntRange(1), metavar="MB", help="Memory.")
@click.option("--description", help="What it is for.")
@click.option("--role", metavar="ARN", help="Execution role.  [default: role/serverfull of the account]")
@click.option("--publish", is_flag=True, help="Publish a version.")
@click.option("--alias", type=not_empty, metavar="NAME", help="Publish a version, and let this alias name it.")
@click.option("--tag", multiple=True, metavar="KEY=VALUE", callback=_pairs, help="Tag; repeatable.")
@endpoint_option
@region_option
@config_option
@output_option
def deploy(
    source: Path,
    name: str | None,
    handler: str | None,
    env: dict[str, str],
    tag: dict[str, str],
    publish: bool,
    alias: str | None,
    output: str,
    **flags: Any,
) -> None:
    """Deploy a directory as a function.

    DIR is a directory, a .py file or a .zip file. The function is created, or updated where it exists; then what is not
    given stays as it is, and --env replaces all variables. The command ends when the function can be invoked.

    \b
    serverfull deploy hello
    serverfull deploy shop/ --name order --handler app.order --env TABLE=orders --alias live
    """
    from serverfull.cli.deployment import Deployment, Wish, find
    from serverfull.cli.packaging import package_of

    given = {
        "Handler": handler,
        "Environment": {"Variables": env} if env else None,
        "Runtime": flags.pop("runtime"),
        "Timeout": flags.pop("timeout"),
        "MemorySize": flags.pop("memory_size"),
        "Description": flags.pop("description"),
        "Role": flags.pop("role"),
    }
    client = client_of(flags)
    package = package_of(source)
    name = _checked_name(name or package.name)
    present = find(client, name)
    members = {member: value for member, value in given.items() if value is not None}
    if "Handler" not in members:
        members |= _handler(package.content, members.get("Runtime"), present.get("Configuration", {}))
    wish = Wish(
        name=name,
        package=package.content,
        members=members,
        defaults={} if present else _defaults(client, members),
        tags=tag,
        publish=publish,
        alias=alias,
    )
    _say(Deployment(client, wish, _upload()).run(present), output)


def _checked_name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise click.UsageError(
            f"{name!r} is no name of a function, which has up to 64 letters, digits, - and _: say --name"
        )
    return name


def _handler(package: bytes, runtime: str | None, present: Mapping[str, Any]) -> dict[str, str]:
    """Find the handler, unless the function has one that is in the package."""
    from serverfull.cli.handlers import find_handler, has_module_of

    if not (runtime or present.get("Runtime", "python")).startswith("python"):
        if present:
            return {}
        raise click.UsageError(f"--handler is needed with --runtime {runtime}")
    if present and has_module_of(package, present.get("Handler", "")):
        return {}
    return {"Handler": find_handler(package)}


def _defaults(client: Client, members: Mapping[str, Any]) -> dict[str, str]:
    """Give what a new function needs and nobody said."""
    if "Runtime" in members and "Role" in members:
        return {}
    info = client.document("/_serverfull/info", unless=403)  # a host tells it to its own machine alone
    major, minor, *_ = str(info.get("python", platform.python_version())).split(".")
    account = client.account or info.get("account", "000000000000")
    return {"Runtime": f"python{major}.{minor}", "Role": f"arn:aws:iam::{account}:role/serverfull"}


def _upload() -> Callable[[bytes], BinaryIO]:
    """Give what request bodies are read from: where somebody watches, it shows how far."""
    return _Shown if sys.stderr.isatty() else BytesIO


class _Shown(BytesIO):
    """Shows on standard error how much of it has been read."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        bar: Any = click.progressbar(length=len(content), label="Uploading", file=sys.stderr, width=_SIGNS)
        self._bar = bar
        bar.__enter__()

    def read(self, size: int | None = -1, /) -> bytes:
        """Give the next bytes, and show it."""
        piece = super().read(size)
        self._bar.update(len(piece))
        return piece

    def close(self) -> None:
        """End the line of the bar."""
        if not self.closed:
            self._bar.__exit__(None, None, None)
        super().close()


def _say(result: Result, output: str) -> None:
    if output == "json":
        document = {"Done": result.done, "Version": result.version, "Configuration": result.configuration}
        click.echo(json.dumps(document, indent=2))
    else:
        name = result.configuration["FunctionName"]
        click.echo(f"{name}: {', '.join(result.done) or 'nothing has changed'}")
