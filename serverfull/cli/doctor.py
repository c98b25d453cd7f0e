"""``serverfull doctor``: what this machine can run, and why not. No host has to run, and nothing is changed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serverfull.cli.options import config_option, loaded, setting_option
from serverfull.cli.tables import output_option, table

if TYPE_CHECKING:
    from serverfull.config import DependencySettings, DockerSettings, ExecutionSettings, ServerSettings, StateSettings
    from serverfull.config.settings import ReloadSettings
    from serverfull.runtimes.process.means import Walls

_PATIENCE = 10.0
"""Seconds that the Docker engine may take for an answer."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one thing.

    :param check: what was looked at, such as ``python3.12`` or ``memory``.
    :param state: one word, or two.
    :param detail: what it is, or why not and what to do; may be empty.
    """

    check: str
    state: str
    detail: str = ""


@click.command()
@setting_option("server.host", text="Address that a host would bind.")
@setting_option("server.port", click.IntRange(0, 65535), text="TCP port that a host would bind.")
@setting_option("state.path", text="Directory that would keep what is deployed.")
@config_option
@output_option
def doctor(output: str, **flags: Any) -> None:
    """Show what this machine can run, and why not.

    Looked at are each runtime of AWS, what processes of functions are held with, what installs their dependencies,
    what notices changes of code in folders, the state's directory, the port, the Docker engine, and whether it has the
    images of docker.images. The exit code is 0 whatever is found.

    \b
    serverfull doctor
    serverfull doctor --output json
    """
    settings = loaded(flags).settings
    runtimes = list(_runtimes(settings.execution))
    sandbox, dependencies = _sandbox(settings.execution), _dependencies(settings.dependencies)
    engine, images = _docker(settings.docker)
    watching = _watching(settings.reload)
    machine = [*sandbox, dependencies, watching, _state(settings.state), _port(settings.server), engine]
    if output == "json":
        groups = {"runtimes": runtimes, "machine": machine, "images": images}
        click.echo(json.dumps({name: _by_check(group) for name, group in groups.items()}, indent=2))
        return
    click.echo(table(("RUNTIME", "STATE", "DETAIL"), [(f.check, f.state, f.detail) for f in runtimes]))
    click.echo()
    click.echo(table(("MACHINE", "STATE", "DETAIL"), [(f.check, f.state, f.detail) for f in machine]))
    if images:
        click.echo()
        click.echo(table(("IMAGE OF", "STATE", "DETAIL"), [(f.check, f.state, f.detail) for f in images]))


def _by_check(findings: Sequence[Finding]) -> dict[str, dict[str, str]]:
    return {finding.check: {"state": finding.state, "detail": finding.detail} for finding in findings}


def _runtimes(settings: ExecutionSettings) -> Iterator[Finding]:
    from serverfull.domain.runtimes import RUNTIMES
    from serverfull.runtimes.process.interpreters import Interpreters, Missing

    looking = Interpreters(settings.other_python)
    for runtime in RUNTIMES:
        found = looking.find(runtime)
        if isinstance(found, Missing):
            yield Finding(runtime, "missing", found.reason)
        elif found.path is None:
            yield Finding(runtime, "ok", "the function's own bootstrap")
        elif found.note is not None:
            yield Finding(runtime, "other", found.note)
        else:
            yield Finding(runtime, "ok", f"{found.path} ({found.version})")


def _sandbox(settings: ExecutionSettings) -> Iterator[Finding]:
    from serverfull.runtimes.process.means import probe, probe_strict

    means = probe()
    is_held = settings.sandbox != "none"
    yield Finding("sandbox", settings.sandbox, "" if is_held else "execution.sandbox says so; what follows is not used")
    yield _strict(probe_strict())
    yield Finding("memory", means.memory, means.why.get("memory", ""))
    yield Finding("processes", means.pids, means.why.get("pids", ""))
    yield Finding("/tmp", means.tmp, means.why.get("tmp", ""))  # noqa: S108 - what it is called
    yield Finding("/opt", means.opt, means.why.get("opt", ""))


def _dependencies(settings: DependencySettings) -> Finding:
    from serverfull.dependencies.installers import find_npm, find_uv

    uv = None if settings.python_installer == "pip" else find_uv()
    if uv is None and settings.python_installer == "uv":
        python = "uv is missing"
    else:
        python = f"uv: {uv}" if uv else "pip of the Python that runs the function"
    return Finding(
        "dependencies", settings.install, f"{python}; {f'npm: {npm}' if (npm := find_npm()) else 'npm is missing'}"
    )


def _watching(settings: ReloadSettings) -> Finding:
    """Say what notices that code in folders has changed."""
    from serverfull.reload.extra import EXTRA, missing

    if (package := missing()) is not None:
        return Finding("watching", "impossible", f"{package} is not installed: pip install 'serverfull[{EXTRA}]'")
    if settings.polling:
        return Finding("watching", "polling", f"every {settings.poll_interval:g} s, as reload.polling says")
    try:
        most = Path("/proc/sys/fs/inotify/max_user_watches").read_text(encoding="ascii").strip()
    except OSError:
        return Finding("watching", "polling", "this kernel watches nothing")
    return Finding("watching", "possible", f"the kernel watches {most} folders for all programs of a user")


def _strict(walls: Walls) -> Finding:
    """Say whether ``execution.sandbox = "strict"`` can be had; a host that cannot have it does not start."""
    if walls.why:
        return Finding("strict", "impossible", walls.why)
    second = f"Landlock {walls.landlock}" if walls.landlock else "this kernel has no Landlock to help"
    return Finding("strict", "possible", f"namespaces, a filter of system calls, {second}")


def _state(settings: StateSettings) -> Finding:
    from serverfull.serving import DEFAULT_STATE

    if settings.path == "memory":
        return Finding("state", "memory", "what is deployed is gone when the host ends")
    folder = Path(settings.path or DEFAULT_STATE).absolute()
    there = folder
    try:
        while not there.exists():
            there = there.parent
        with tempfile.TemporaryFile(dir=there) as file:  # has no name, so that nobody ever sees it
            file.write(b"\0")
    except OSError as wrong:
        return Finding("state", "unusable", f"{there} cannot be written: {wrong.strerror}")
    return Finding("state", "ok", str(folder) if there == folder else f"{folder}, which the first host makes")


def _port(settings: ServerSettings) -> Finding:
    from serverfull.errors import AddressInUse, StartupError
    from serverfull.serving import bind

    try:
        bind(settings).close()
    except AddressInUse as wrong:
        return Finding("port", "in use", str(wrong))
    except StartupError as wrong:
        return Finding("port", "unusable", str(wrong))
    return Finding("port", "free", f"{settings.host}:{settings.port or 'any'}")


def _docker(settings: DockerSettings) -> tuple[Finding, list[Finding]]:
    """Ask the engine who it is, and which of the images of runtimes it has."""
    from serverfull.runtimes.docker.engine import Engine, EngineGone
    from serverfull.runtimes.docker.images import parsed

    images = parsed(settings.images)
    engine = Engine(settings.engine)
    try:
        client = engine.connect(_PATIENCE)
        found = client.version()
    except EngineGone as gone:
        unknown = [Finding(runtime, "unknown", image) for runtime, image in images.items()]
        return Finding("docker", "missing", str(gone)), unknown
    except Exception as wrong:  # the engine's own refusal, or what stands in its place
        return Finding("docker", "missing", f"{settings.engine} answers as no Docker engine does: {wrong}"), []
    else:
        having = {name for image in client.images() for name in image.get("RepoTags") or ()}
        told = [_image(runtime, image, having, settings.pull) for runtime, image in images.items()]
        return Finding("docker", "ok", f"engine {found['Version']} at {settings.engine}"), told
    finally:
        engine.close()


def _image(runtime: str, image: str, having: Collection[str], pull: str) -> Finding:
    tagged = image if ":" in image.rpartition("/")[2] else f"{image}:latest"
    if tagged in having:
        return Finding(runtime, "ok", image)
    said = "and docker.pull is 'never'" if pull == "never" else "which pulls it when it is first needed"
    return Finding(runtime, "missing", f"{image} is not in the engine, {said}")
