"""Says which program runs a function: an interpreter with one of two runtime clients, or what the function brings.

What is asked here looks into folders, and once into an interpreter: call it on a thread.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serverfull.domain.deployed_handler import WRAPPER_VARIABLE
from serverfull.runtimes.process.interpreters import Interpreter, Missing, node_command
from serverfull.runtimes.sandboxes.variables import OPT, python_path, virtualenvs
from serverfull.runtimes.sandboxes.wanted import CLIENT_TAG, Unrunnable

if TYPE_CHECKING:
    from serverfull.runtimes.sandboxes.wanted import Client, Wanted

_PATIENCE = 10.0
"""Seconds that an interpreter may take to say whether it has a module."""

_TASK_ROOT = "/var/task"
"""Where packages are on AWS, and what paths in a function's variables may therefore begin with."""

# https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html: e_machine, little-endian.
_MACHINES = {b"\x3e\x00": "x86_64", b"\xb7\x00": "arm64"}
_MACHINE_NAMES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
_EMULATORS = {"x86_64": "qemu-x86_64", "arm64": "qemu-aarch64"}
_FOREIGN = Path("/proc/sys/fs/binfmt_misc")

_OFFICIAL = """\
import os, sys
library = os.path.dirname(os.__file__)
own, first, others = {library, library + "/lib-dynload"}, sys.argv[1].split(":"), sys.path[1:]
for virtualenv in sys.argv[3:]:
    import glob, site
    name, before = glob.escape(virtualenv) + "/lib/python%s/site-packages", len(sys.path)
    for folder in (glob.glob(name % ("%d.%d" % sys.version_info[:2])) or sorted(glob.glob(name % "*")))[-1:]:
        site.addsitedir(folder)
    first[1:1] = sys.path[before:]
sys.argv = ["awslambdaric", sys.argv[2]]
sys.path = [path for path in others if path in own] + first + [path for path in others if path not in own]
from awslambdaric.__main__ import main
sys.path = first + others
main(sys.argv)
"""
"""Runs the official client with the function's folders first, as on AWS; ``python -m`` would look nowhere else.

As there, the client itself is loaded without them: a module of the function named ``json`` or ``typing`` is not for it.
"""


@dataclass(frozen=True, slots=True)
class Program:
    """What runs a function.

    :param command: what is executed; None: our own runtime client, in a zygote's warm copy.
    :param client: what that is told.
    """

    command: Sequence[str] | None = None
    client: Mapping[str, Any] | None = None


def find_program(function: Wanted, found: Interpreter, client: Client, opt: Path) -> Program:
    """Say what is executed.

    :param client: as `chosen_client` gives it.
    :param opt: where the process sees its layers.
    :raises Unrunnable: what is to be executed is not there, or not for this machine.
    """
    if found.kind == "bootstrap":
        return Program([_bootstrap(function, opt)])
    wrapper = _wrapper(function, opt)
    if found.kind == "node":
        return Program([*wrapper, *_node(function, found, client, opt)])
    path = python_path(function.root, opt, found.series)
    environments = virtualenvs(function.root) if function.virtualenv else []
    if client == "own":
        told = {
            "handler": function.handler,
            "root": str(function.root),
            "path": path,
            "wrapper": wrapper,
            "virtualenvs": environments,
            "live": str(function.root) if function.live else "",
        }
        return Program(client=told)
    _check_official(function, found)
    fresh = ["-X", "pycache_prefix=/tmp/.pycache"] if function.live else []
    script = [*fresh, "-c", _OFFICIAL, os.pathsep.join(path), function.handler, *environments]
    return Program([*wrapper, str(found.path), *script])


def _wrapper(function: Wanted, opt: Path) -> list[str]:
    """Give the program that is to start the runtime; paths are understood as they are on AWS."""
    named = function.identity.function.environment.get(WRAPPER_VARIABLE, "")
    for place, here in ((_TASK_ROOT, function.root), (str(OPT), opt)):
        if named.startswith(f"{place}/"):
            return [str(here) + named.removeprefix(place)]
    return [named] if named else []


def _node(function: Wanted, found: Interpreter, client: Client, opt: Path) -> list[str]:
    command = node_command(
        found,
        function.handler,
        memory_mb=function.identity.memory_size,
        client=client,
        folders={function.root: function.root, **{layer / "nodejs": opt / "nodejs" for layer in function.layers}},
        options=function.identity.function.environment.get("NODE_OPTIONS", ""),
    )
    if isinstance(command, Missing):
        raise Unrunnable(command.reason)
    return command


def _check_official(function: Wanted, found: Interpreter) -> None:
    layers = [Path(folder) for layer in function.layers for folder in python_path(function.root, layer, found.series)]
    if any((folder / "awslambdaric").is_dir() for folder in (function.root, *layers)):
        return
    assert found.path is not None
    if not _has_official(found.path):
        raise Unrunnable(
            f"It is to be run by awslambdaric (execution.client, or its tag {CLIENT_TAG}), which neither Python "
            f"{found.version} nor its package or a layer has: {found.path} -m pip install awslambdaric"
        )


def _has_official(python: Path) -> bool:
    question = "import importlib.util, sys; sys.exit(importlib.util.find_spec('awslambdaric') is None)"
    try:
        done = subprocess.run(  # noqa: S603 - an interpreter of the operator's own
            [python, "-c", question], stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def _bootstrap(function: Wanted, opt: Path) -> str:
    """Find the executable that a function of an OS-only runtime brings, in its package or in a layer."""
    said = "is missing"
    for folder, seen in ((function.root, function.root), *((layer, opt) for layer in reversed(function.layers))):
        file = folder / "bootstrap"
        if file.is_file():
            if os.access(file, os.X_OK):
                _check_machine(file)
                return str(seen / "bootstrap")
            said = "is not executable (chmod +x bootstrap, before it is packed)"
    raise Unrunnable(
        f"{function.runtime} needs a file named bootstrap in the package or in a layer, and it {said}",
        "FunctionError.InvalidEntryPoint",
    )


def _check_machine(file: Path) -> None:
    """Refuse a binary that is for machines of the other kind that AWS has."""
    with file.open("rb") as opened:
        head = opened.read(20)
    made_for = _MACHINES.get(head[18:20]) if head.startswith(b"\x7fELF") else None
    here = _MACHINE_NAMES.get(platform.machine().lower())
    if made_for is None or here is None or made_for == here or (_FOREIGN / _EMULATORS[made_for]).exists():
        return
    raise Unrunnable(
        f"Its bootstrap is a program for {made_for}, and this machine is {here}: build it for that",
        "FunctionError.InvalidEntryPoint",
    )
