"""``serverfull dev``: serves functions while they are written."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serverfull.cli.options import config_option, loaded, setting_option
from serverfull.signals import AtOnce, say

if TYPE_CHECKING:
    from serverfull.host import Host

_FOR_DEVELOPMENT = {"reload.generation_header": True, "reload.builds": True}


@click.command()
@click.argument("targets", metavar="[DIR]...", nargs=-1)
@setting_option("server.host", text="Address to bind.")
@setting_option("server.port", click.IntRange(0, 65535), text="TCP port; 0 lets the system choose.")
@setting_option("state.path", text="Directory that keeps what is deployed, or 'memory'.")
@setting_option(
    "execution.mode", click.Choice(["auto", "inprocess", "process", "docker"]), text="How functions of folders run."
)
@setting_option(
    "logging.level", click.Choice(["DEBUG", "INFO", "WARN", "ERROR"], case_sensitive=False), text="Least level logged."
)
@config_option
def dev(targets: tuple[str, ...], **flags: Any) -> int:
    """Serve functions as they are edited.

    What is saved is what the next call runs. DIR is a folder with a sub-folder or a .py file for each function, the
    current one unless it is said, or any TARGET of serverfull serve. It is as if that were told to reload, to run build
    commands, and to say with each answer which generation of the code has given it. When the host is ready it prints
    for each function how it is invoked.

    \b
    serverfull dev
    serverfull dev ./functions
    serverfull dev app.py ./functions --port 9000
    """
    settings = loaded({**_FOR_DEVELOPMENT, **flags})
    if (ending := click.get_current_context().find_object(AtOnce)) is not None:
        signals = settings.settings.signals
        ending.keep(signals.os_signals if signals.installed else ())
    from serverfull.serving import run_serve

    return run_serve([_target(text) for text in targets] or ["."], settings, reload=True, greet=_greet)


def _target(text: str) -> str:
    """Take a folder for one, also where a module could have its name."""
    return f"./{text}" if "/" not in text and Path(text).is_dir() else text


async def _greet(host: Host, url: str) -> None:
    """Print how each function is invoked, as soon as it can be."""
    found = [each for each in await host.registered.survey() if each.hidden_by is None]
    for each in sorted(found, key=lambda each: each.failure is not None):
        try:
            await host.registered.fetch(each.name)  # waits for what is still being built
        except Exception as failure:
            say(f"  {each.name}: cannot be served: {getattr(failure, 'message', None) or failure}")
            continue
        say(f"  serverfull invoke {each.name} '{{}}' --endpoint {shlex.quote(url)}")
        say(
            f"  aws lambda invoke --endpoint-url {shlex.quote(url)} --function-name {each.name} "
            "--cli-binary-format raw-in-base64-out --payload '{}' /dev/stdout"
        )
