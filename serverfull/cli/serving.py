"""``serverfull serve``: reads the settings and hands over to the host."""

from __future__ import annotations

from typing import Any

import click

from serverfull.cli.options import config_option, loaded, seconds, setting_option
from serverfull.signals import AtOnce


@click.command()
@click.argument("targets", metavar="[TARGET]...", nargs=-1)
@setting_option("server.host", text="Address to bind.")
@setting_option("server.port", click.IntRange(0, 65535), text="TCP port; 0 lets the system choose.")
@setting_option("server.workers", click.IntRange(1), text="Processes that share the port.")
@setting_option(
    "server.insecure_no_auth",
    is_flag=True,
    text="Allow a bind that other machines reach although nothing authenticates them.",
)
@setting_option("server.admin_address", text="host:port of a second listener for health and metrics.")
@setting_option("server.shutdown_timeout", seconds, text="How long a drain waits for calls in flight.")
@setting_option("functions.region", text="Region of requests that carry none.")
@setting_option("limits.max_concurrency", click.IntRange(1), text="Invocations of all functions at once.")
@setting_option(
    "logging.level", click.Choice(["DEBUG", "INFO", "WARN", "ERROR"], case_sensitive=False), text="Least level logged."
)
@setting_option("logging.format", click.Choice(["auto", "console", "json"]), text="Shape of the host's log.")
@setting_option("state.path", text="Directory that keeps what is deployed, or 'memory'.")
@setting_option("state.code_store", text="s3://bucket/prefix that keeps deployment packages.")
@setting_option(
    "execution.mode", click.Choice(["auto", "inprocess", "process", "docker"]), text="How deployed functions run."
)
@setting_option("mock.enabled", is_flag=True, text="Answer without running handlers.")
@setting_option("mock.answers", text="What mock mode answers: zero, random, or a JSON file or folder.")
@setting_option("mock.seed", int, text="Makes random answers repeatable.")
@click.option("--reload", is_flag=True, help="Load the code of TARGET anew when it changes.")
@config_option
def serve(
    targets: tuple[str, ...], server__insecure_no_auth: bool, mock__enabled: bool, reload: bool, **flags: Any
) -> int:
    """Serve functions behind the Lambda API.

    TARGET is module:attribute or path/file.py:attribute. The attribute is a dict of name → handler, a list of handlers,
    a Fetcher, one handler, or a module that has such a dict or list as "functions", which is also what is served when
    TARGET has no attribute. A TARGET that is a folder, with a slash in it, has a sub-folder or a .py file for each
    function; s3://bucket/prefix is one in S3. docker:// is the images that say by a label which functions they are,
    and docker://registry/{name}:{qualifier} those of such names. Of several TARGETs each hides functions of the later
    ones that have the same names.

    Without TARGET, functions come through the management API alone and are kept in the directory .serverfull.

    \b
    serverfull serve
    serverfull serve app.py
    serverfull serve ./functions
    serverfull serve s3://bucket/prefix
    serverfull serve shop.handlers:functions ./functions --port 9000
    serverfull serve app.py --reload
    """
    switches = {"server__insecure_no_auth": server__insecure_no_auth, "mock__enabled": mock__enabled}
    settings = loaded({**flags, **{name: given or None for name, given in switches.items()}})
    if (ending := click.get_current_context().find_object(AtOnce)) is not None:
        signals = settings.settings.signals
        ending.keep(signals.os_signals if signals.installed else ())
    from serverfull.serving import run_serve

    return run_serve(targets, settings, reload=reload)
