"""Which program installs what a package asks for, and how it is called: uv or pip for Python, npm for Node.js.

None of them runs code of packages: only wheels are installed, and npm runs no scripts. So they may have what they need
of the operator's configuration, such as where indexes are and how one signs in there.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from serverfull.dependencies.pip_alone import WITHOUT_PIP
from serverfull.dependencies.python import CONSTRAINTS, REQUIREMENTS
from serverfull.errors import DependenciesNotInstalled

if TYPE_CHECKING:
    from serverfull.config import DependencySettings
    from serverfull.dependencies.manifests import Manifest
    from serverfull.runtimes.process.interpreters import Interpreter

__all__ = ["WITHOUT_PIP", "Installer", "find_npm", "find_uv", "installer_of", "platform_of"]

_PIP = Path(__file__).with_name("pip_alone.py")
_USUAL = ("/usr/local/bin", "/usr/bin", "/bin")

_MACHINES = {"x86_64": "x64", "aarch64": "arm64"}
_SINCE_2023 = 12

RESULT = "../result"
"""Where installers put things, seen from the folder that they work in."""


@dataclass(frozen=True, slots=True)
class Installer:
    """How something is installed.

    :param name: of the program, for logs and reasons.
    :param variables: that it needs beside those of the operator.
    :param files: that it needs beside those of the manifest.
    """

    name: Literal["uv", "pip", "npm"]
    command: Sequence[str]
    variables: Mapping[str, str]
    files: Mapping[str, bytes]


def find_uv() -> str | None:
    """Give where uv is."""
    return _found("uv")


def find_npm(node: Path | None = None) -> str | None:
    """Give where npm is: beside the Node.js that runs the function, or elsewhere."""
    beside = None if node is None else shutil.which("npm", path=str(node.parent))
    return beside or _found("npm")


def _found(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path=os.pathsep.join(_USUAL))


def installer_of(
    function: str, manifest: Manifest, interpreter: Interpreter, settings: DependencySettings, cache: Path
) -> Installer:
    """Say what installs a manifest.

    :param function: that it is for.
    :param interpreter: that will run it; without a path that of a container.
    :param cache: a folder for what is fetched.
    :raises DependenciesNotInstalled: it is not on this machine.
    """
    if manifest.kind == "node":
        npm = find_npm(interpreter.path)
        if npm is None:
            missing = f"Its {manifest.source} needs npm, which is not on the host's PATH."
            raise DependenciesNotInstalled(function, missing, "InvalidRuntime")
        return _npm(npm, manifest, interpreter, settings, cache)
    uv = None if settings.python_installer == "pip" else find_uv()
    if uv is not None:
        return _uv(uv, manifest, interpreter, settings, cache)
    if settings.python_installer == "uv":
        missing = "dependencies.python_installer is uv, which is not on the host's PATH."
        raise DependenciesNotInstalled(function, missing, "InvalidRuntime")
    if interpreter.path is None:
        missing = f"Its {manifest.source} needs uv on the host's PATH: pip installs for no Python but its own."
        raise DependenciesNotInstalled(function, missing, "InvalidRuntime")
    return _pip(interpreter.path, manifest, settings, cache)


def platform_of(interpreter: Interpreter) -> str:
    """Name the oldest system that containers of a runtime are, as uv calls it.

    AWS's images are Amazon Linux 2 up to Python 3.11, with glibc 2.26, and Amazon Linux 2023 from then on, with 2.34.
    """
    _, minor = (int(number) for number in interpreter.series.split("."))
    return f"{platform.machine()}-{'manylinux_2_28' if minor >= _SINCE_2023 else 'manylinux2014'}"


def _constrained(manifest: Manifest) -> list[str]:
    return ["--constraint", CONSTRAINTS] if CONSTRAINTS in manifest.files else []


def _uv(uv: str, manifest: Manifest, interpreter: Interpreter, settings: DependencySettings, cache: Path) -> Installer:
    index = ["--default-index", settings.python_index] if settings.python_index else []
    if interpreter.path is None:
        target = ["--python", sys.executable, "--python-version", interpreter.series]
        target += ["--python-platform", platform_of(interpreter)]
    else:
        target = ["--python", str(interpreter.path), "--compile-bytecode"]
    command = [
        *(uv, "pip", "install", "--no-progress", "--color", "never", "--no-python-downloads"),
        *("--target", RESULT, *target, "--no-build"),
        *("--link-mode", "copy", "--cache-dir", str(cache / "uv"), *index),
        *("--requirement", REQUIREMENTS, *_constrained(manifest)),
    ]
    # Its configuration of the project would be looked for upwards from here, where the state of a host may lie.
    return Installer("uv", command, {}, {"uv.toml": b""})


def _pip(python: Path, manifest: Manifest, settings: DependencySettings, cache: Path) -> Installer:
    index = ["--index-url", settings.python_index] if settings.python_index else []
    command = [
        *(str(python), "-I", str(_PIP), "install", "--no-input", "--disable-pip-version-check", "--no-color"),
        *("--progress-bar", "off", "--no-user", "--target", RESULT, "--only-binary", ":all:"),
        "--no-warn-conflicts",  # with what this Python has, all of which it would read for that
        *("--cache-dir", str(cache / "pip"), *index, "--requirement", REQUIREMENTS, *_constrained(manifest)),
    ]
    variables = {"PIP_ROOT_USER_ACTION": "ignore", "PIP_REQUIRE_VIRTUALENV": "0"}
    return Installer("pip", command, variables, {})


def _npm(
    npm: str, manifest: Manifest, interpreter: Interpreter, settings: DependencySettings, cache: Path
) -> Installer:
    registry = ["--registry", settings.node_registry] if settings.node_registry else []
    if interpreter.path is None:
        machine = _MACHINES.get(platform.machine(), platform.machine())
        target = ["--os=linux", f"--cpu={machine}", "--libc=glibc"]
        nodes = [str(Path(node).parent) for node in [_found("node")] if node]
    else:
        target, nodes = [], [str(interpreter.path.parent)]
    command = [
        *(npm, "ci" if manifest.locked else "install", "--prefix", ".", "--no-global", "--omit=dev", "--no-save"),
        *("--ignore-scripts", "--git=/nonexistent/git", "--no-audit", "--no-fund", "--no-update-notifier"),
        *("--no-progress", "--color=false", "--loglevel=error", "--logs-max=0", "--no-dry-run", *target),
        *("--no-package-lock-only", f"--replace-registry-host={'never' if manifest.copied else 'always'}"),
        *("--cache", str(cache / "npm"), *registry),
    ]
    return Installer("npm", command, {"PATH": os.pathsep.join((*nodes, *_USUAL))}, {})
