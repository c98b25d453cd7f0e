"""Finds what runs a function's runtime on this machine: a Python, a Node.js, or the function's own bootstrap.

A program counts when it has been run once and has told its version: a version manager's stand-in on the PATH may fail
when it is called, and the versions that lie beside it are looked at first. What was found stays found until its file
changes; what was not is looked for again after half a minute, and when a function is deployed, so that installing it
needs no restart.

The process runtime asks on the event loop, by `Interpreters.find_for`, and the search goes on in a thread;
``serverfull doctor`` calls `Interpreters.find`.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from json import JSONDecoder
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol

Kind = Literal["python", "node", "bootstrap"]

AGAIN_AFTER = 30.0
"""Seconds after which what was not found is looked for again."""

_PATIENCE = 10.0
"""Seconds that a program may take to tell its version."""

_USUAL = ("/usr/local/bin", "/usr/bin")
"""Where programs are when the PATH leaves them out, as that of a service may."""

_PYTHON = re.compile(r"python(3\.\d+)")
_NODE = re.compile(r"nodejs(\d+)\.x")

_ASK_PYTHON = (
    "-I",
    "-c",
    "import json, sys; print(json.dumps([sys.implementation.name, '%d.%d.%d' % sys.version_info[:3], sys.executable]))",
)
_ASK_NODE = ("-p", "JSON.stringify(['node', process.versions.node, process.execPath])")

# Beside the folder with a version manager's stand-ins: pyenv and nodenv, asdf, mise.
_MANAGED: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {
        "python": ("versions/{version}.*/bin", "installs/python/{version}.*/bin"),
        "node": ("versions/{version}.*/bin", "installs/nodejs/{version}.*/bin", "installs/node/{version}.*/bin"),
    }
)

# https://packages.debian.org and https://packages.ubuntu.com: what a release calls python3 and nodejs.
_PACKAGED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "bullseye": ("3.9", "12"),
        "bookworm": ("3.11", "18"),
        "trixie": ("3.13", "20"),
        "focal": ("3.8", "10"),
        "jammy": ("3.10", "12"),
        "noble": ("3.12", "18"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """What runs a runtime here.

    :param path: the program itself, not a stand-in for it; None: the function brings what is executed.
    :param version: as the program tells it, such as ``3.12.1``.
    :param note: what the operator should know where it is not the one that the runtime names.
    """

    runtime: str
    kind: Kind
    path: Path | None = None
    version: str = ""
    note: str | None = None

    @property
    def series(self) -> str:
        """The first two numbers of the version, such as ``3.12``."""
        return ".".join(self.version.split(".")[:2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Nothing runs a runtime here.

    :param reason: why, and what to install; a sentence that fits after the name of a function.
    """

    runtime: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a program told of itself: where it really is, and its version."""

    path: Path
    version: str


class Logger(Protocol):
    """What is told that functions run on another interpreter than they ask for."""

    def warning(self, event: str, **fields: object) -> None:
        """Log what somebody should look at."""


class Interpreters:
    """Looks for interpreters, and remembers them.

    :param other_python: ``use`` the host's Python where the one that a runtime names is not here, or ``error``.
    :param folders: where to look, in this order; None: the PATH of the host, and then the usual places.
    :param release: the code name of the system's release, such as ``bookworm``; None: that of this machine.
    """

    def __init__(
        self,
        other_python: Literal["use", "error"] = "use",
        *,
        folders: Sequence[str | Path] | None = None,
        release: str | None = None,
    ) -> None:
        self._other_python = other_python
        places = (*os.get_exec_path(), *_USUAL) if folders is None else folders
        self._folders = tuple(dict.fromkeys(Path(folder) for folder in places if str(folder)))
        self._release = _this_release() if release is None else release
        self._found: dict[str, tuple[float, Interpreter | Missing]] = {}
        self._answers: dict[tuple[object, ...], _Answer] = {}
        self._told: set[tuple[str, str]] = set()
        self._searching = threading.Lock()

    def find(self, runtime: str, *, anew: bool = False) -> Interpreter | Missing:
        """Find what runs a runtime. Blocks, up to some seconds the first time; any thread may call it.

        :param runtime: as CreateFunction takes it, such as ``python3.12``.
        :param anew: what was not found is looked for again now.
        """
        with self._searching:
            known = self._remembered(runtime, anew=anew)
            if known is None:
                known = self._search(runtime)
                self._found[runtime] = (time.monotonic(), known)
            return known

    async def find_for(
        self, function: str, runtime: str, logger: Logger, *, anew: bool = False
    ) -> Interpreter | Missing:
        """Find what runs a function's runtime, on a thread where it takes a search.

        :param function: its name; where it runs on another interpreter than it asks for, the log says so, once.
        :param anew: what was not found is looked for again now.
        """
        found = self._remembered(runtime, anew=anew)
        if found is None:
            found = await asyncio.to_thread(self.find, runtime, anew=anew)
        if isinstance(found, Interpreter) and found.note and (function, runtime) not in self._told:
            self._told.add((function, runtime))
            logger.warning("function runs on another interpreter", function=function, runtime=runtime, why=found.note)
        return found

    def _remembered(self, runtime: str, *, anew: bool) -> Interpreter | Missing | None:
        since, found = self._found.get(runtime, (0.0, None))
        if isinstance(found, Interpreter) and found.note is None:
            return found if found.path is None or _state(found.path) in self._answers else None
        return found if time.monotonic() - since < AGAIN_AFTER and not anew else None

    def _search(self, runtime: str) -> Interpreter | Missing:
        if named := _PYTHON.fullmatch(runtime):
            return self._python(runtime, named[1])
        if named := _NODE.fullmatch(runtime):
            return self._node(runtime, named[1])
        if runtime.startswith("provided"):
            return Interpreter(runtime=runtime, kind="bootstrap")
        if runtime.startswith(("java", "dotnet", "ruby")):
            reason = f"{runtime} needs a container: its tag serverfull:execution can say 'docker', or execution.mode"
            return Missing(runtime=runtime, reason=reason)
        return Missing(runtime=runtime, reason=f"{runtime!r} is no runtime that this version knows")

    def _python(self, runtime: str, version: str) -> Interpreter | Missing:
        own = self._ask("python", Path(sys.executable)) if sys.executable else None
        found = own
        if own is None or not own.version.startswith(f"{version}."):
            found = self._program("python", (f"python{version}",), version)
        if found is not None:
            return Interpreter(runtime=runtime, kind="python", path=found.path, version=found.version)
        absent, advice = f"Python {version} is not on this machine", self._advice("python", version)
        if own is None or self._other_python == "error":
            return Missing(runtime=runtime, reason=f"{absent}: {advice}")
        note = f"{absent}, the host's {own.version} is used: {advice}"
        return Interpreter(runtime=runtime, kind="python", path=own.path, version=own.version, note=note)

    def _node(self, runtime: str, version: str) -> Interpreter | Missing:
        names = ("node", "nodejs")
        found = self._program("node", names, version)
        if found is not None:
            return Interpreter(runtime=runtime, kind="node", path=found.path, version=found.version)
        told = (self._ask("node", candidate) for candidate in self._candidates("node", names, "*"))
        others = sorted({answer.version for answer in told if answer is not None})
        has = f", which has {' and '.join(others)}" if others else ""
        reason = f"Node.js {version} is not on this machine{has}: {self._advice('node', version)}"
        return Missing(runtime=runtime, reason=reason)

    def _program(self, kind: Kind, names: Sequence[str], version: str) -> _Answer | None:
        for candidate in self._candidates(kind, names, version):
            told = self._ask(kind, candidate)
            if told is not None and told.version.startswith(f"{version}."):
                return told
        return None

    def _ask(self, kind: Kind, program: Path) -> _Answer | None:
        """Have a program tell what it is, once for as long as its file stays the same."""
        state = _state(program)
        known = self._answers.get(state)
        if known is None and state:
            known = _answer(program, _ASK_PYTHON if kind == "python" else _ASK_NODE)
            if known is not None:
                self._answers[state] = self._answers[_state(known.path)] = known
        return known

    def _candidates(self, kind: Kind, names: Sequence[str], version: str) -> Iterator[Path]:
        for folder in self._folders:
            if folder.name == "shims":  # the versions beside them answer ten times faster than the stand-ins
                for pattern in _MANAGED[kind]:
                    for programs in _installed(folder.parent, pattern.format(version=version)):
                        yield from _executables(programs, names)
            yield from _executables(folder, names)

    def _advice(self, kind: Kind, version: str) -> str:
        which = 0 if kind == "python" else 1
        package = f"python{version}" if kind == "python" else "nodejs"
        if _PACKAGED.get(self._release, ("", ""))[which] == version:
            return f"install the system's package {package}"
        releases = " and ".join(release for release, has in _PACKAGED.items() if has[which] == version)
        elsewhere = f" (the system's package {package} is of that version in {releases})" if releases else ""
        if kind == "python":
            return f"install it with pyenv or uv, and have python{version} on the host's PATH{elsewhere}"
        return f"install it from nodejs.org or deb.nodesource.com, and have node on the host's PATH{elsewhere}"


def _installed(manager: Path, pattern: str) -> list[Path]:
    """Give the folders of a version manager's programs, the newest first; none where they are not for this user."""
    try:
        return sorted(manager.glob(pattern), key=_by_number, reverse=True)
    except OSError:
        return []


def _executables(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    for name in names:
        program = folder / name
        if os.access(program, os.X_OK) and program.is_file():
            yield program


def _answer(program: Path, question: Sequence[str]) -> _Answer | None:
    """Run a program; None where it is not what it looks like."""
    try:
        done = subprocess.run(  # noqa: S603 - a program on the operator's own PATH
            [program, *question], stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=True
        )
        name, version, path = JSONDecoder().decode(done.stdout.decode())
    except (OSError, subprocess.SubprocessError, ValueError, TypeError):
        return None
    return _Answer(Path(path), version) if name in ("cpython", "node") and os.access(path, os.X_OK) else None


def _state(program: Path) -> tuple[object, ...]:
    """Give what changes when a program is replaced; its path too, because several may be links to one file."""
    try:
        status = program.stat()
    except OSError:
        return ()
    return program.parent.resolve() / program.name, status.st_dev, status.st_ino, status.st_mtime_ns


def _by_number(folder: Path) -> list[int]:
    """Sort ``…/versions/3.12.10/bin`` behind ``3.12.9``."""
    return [int(number) for number in re.findall(r"\d+", folder.parent.name)]


def _this_release() -> str:
    try:
        text = Path("/etc/os-release").read_text("utf-8", "replace")
    except OSError:
        return ""
    named = re.search(r'^VERSION_CODENAME="?([\w-]+)', text, re.MULTILINE)
    return named[1] if named else ""


# ---------------------------------------------------------------------------------------------------------- for Node.js

NODE_CLIENT = Path(__file__).parents[1] / "child" / "node_client.mjs"
"""Our own runtime client for Node.js."""

_NPM_CLIENT = Path("node_modules/aws-lambda-ric/bin/index.mjs")

_WITHHELD: Mapping[int, tuple[str, ...]] = MappingProxyType(
    {20: ("require-module",), 22: ("require-module", "detect-module")}
)
"""What Node.js of these versions does by itself as an experiment, and on AWS only for functions that ask for it.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/lambda-nodejs.html#nodejs-experimental-features
"""

_CAN_WITHHOLD = (20, 17)
"""The first version that knows how to leave these out; those before it do not do them."""


def node_command(
    interpreter: Interpreter,
    handler: str,
    *,
    memory_mb: int,
    client: Literal["own", "awslambdaric"] = "own",
    folders: Mapping[Path, Path] = MappingProxyType({}),
    options: str = "",
) -> list[str] | Missing:
    """Give the command that runs a function for Node.js; its working directory is to be the folder of the package.

    As on AWS the heap may take nine tenths of the memory, so that the garbage collector works before the limit does,
    and experiments of Node.js with modules are left out.

    :param handler: ``folder/module.function``.
    :param memory_mb: what the function has.
    :param client: ``awslambdaric`` stands for npm's ``aws-lambda-ric``.
    :param folders: where that may be, the package and ``nodejs`` of each layer, and as what the process sees each.
    :param options: the function's variable ``NODE_OPTIONS``; what it says of the heap and of experiments counts.
    """
    program = NODE_CLIENT
    if client == "awslambdaric":
        brought = next((seen / _NPM_CLIENT for here, seen in folders.items() if (here / _NPM_CLIENT).is_file()), None)
        if brought is None:
            reason = "execution.client is awslambdaric, and neither its package nor a layer has npm's aws-lambda-ric"
            return Missing(runtime=interpreter.runtime, reason=reason)
        program = brought
    heap = [f"--max-old-space-size={memory_mb * 9 // 10}", f"--max-semi-space-size={max(1, memory_mb // 20)}"]
    chosen = options.replace("_", "-")
    if "--max-old-space-size" in chosen or "--max-semi-space-size" in chosen:
        heap = []
    return [str(interpreter.path), *heap, *_withheld(interpreter.version, chosen), str(program), handler]


def _withheld(version: str, options: str) -> list[str]:
    major, minor = (int(number) for number in version.split(".")[:2])
    features = _WITHHELD.get(major, ()) if (major, minor) >= _CAN_WITHHOLD else ()
    return [f"--no-experimental-{feature}" for feature in features if f"--experimental-{feature}" not in options]
