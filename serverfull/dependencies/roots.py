"""Gives each deployed function the folder that it runs from: its package, with what that asks to have installed.

`Dependencies.root` is asked when a version is prepared, which is when things are installed, and when a function is
fetched that is not known yet, which finds them. It is asked on the event loop; disks are used and files are read on
threads. Who asks for the same while it is being installed waits for that. `Dependencies` owns the tasks that install.
"""

from __future__ import annotations

import asyncio
import hashlib
import platform
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from serverfull.dependencies.environments import Store, Unfit
from serverfull.dependencies.installers import WITHOUT_PIP, installer_of, platform_of
from serverfull.dependencies.manifests import Findings, Refused, find_manifest
from serverfull.dependencies.running import Failed, Work, redactor, run
from serverfull.errors import DependenciesNotInstalled, ShuttingDown
from serverfull.storage.durable import Threads

if TYPE_CHECKING:
    from serverfull.config import DependencySettings
    from serverfull.dependencies.installers import Installer
    from serverfull.dependencies.manifests import Manifest
    from serverfull.domain.deployed import FunctionVersion
    from serverfull.runtimes.process.interpreters import Interpreter

FindInterpreter: TypeAlias = "Callable[[str, Mapping[str, str]], Awaitable[Interpreter | None]]"
"""Gives what runs functions of a runtime that have these tags, without a path where that is in a container; None where
nothing does."""

CHOICE_TAG = "serverfull:dependencies"
"""The tag of a function whose package is to be taken as it is: ``off``."""

_WORK, _RESULT = "work", "result"

_AT_ONCE = 4
"""Installations at a time; others wait."""

_MEANWHILE = 4
"""How many times the room of an installation there may be while it is made: archives, what is in them, and itself."""

_AGAIN_AFTER = 30.0
"""Seconds for which a call does not try again what has failed; a deployment does at once."""


class Dependencies:
    """Installs what packages ask for. Close it.

    :param directory: where installations are kept.
    :param find_interpreter: says what runs a function.
    :param variables: what installers get of the host's environment.
    """

    def __init__(
        self,
        directory: Path,
        settings: DependencySettings,
        find_interpreter: FindInterpreter,
        variables: Mapping[str, str],
        logger: Any,
    ) -> None:
        self._store = Store(directory)
        self._settings = settings
        self._find_interpreter = find_interpreter
        self._variables = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", **variables}
        self._logger = logger
        self._redact = redactor(variables, (settings.python_index, settings.node_registry))
        self._threads = Threads("serverfull-dependencies")
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._making: dict[str, asyncio.Task[Path]] = {}
        self._failed: dict[str, tuple[float, DependenciesNotInstalled]] = {}
        self._closed = False

    async def root(self, code: Path, version: FunctionVersion, tags: Mapping[str, str], deploying: bool) -> Path:
        """Give the folder that a version runs from; what it asks for is installed now where it is not yet.

        Being cancelled does not stop that, for others may wait for it too.

        :param code: the folder of its unpacked package.
        :param tags: of the function.
        :param deploying: it is being prepared: what has failed a moment ago is tried again, and the log says what its
            owner should know.
        :raises DependenciesNotInstalled: it could not be.
        :raises ShuttingDown: the host ends.
        :raises OSError: the disk is full or fails.
        """
        if self._closed:
            raise ShuttingDown
        if tags.get(CHOICE_TAG) == "off":
            return code
        try:
            findings = await self._threads.run(partial(find_manifest, code, version.runtime or ""))
        except Refused as refused:
            if self._settings.install == "off":
                return code
            raise DependenciesNotInstalled(version.function, refused.reason) from None
        if deploying:
            self._say(version, findings)
        manifest = findings.manifest
        if manifest is None:
            return code
        interpreter = await self._find_interpreter(version.runtime or "", tags)
        if interpreter is None:
            return code  # whoever looks whether something runs it says so
        name = _name(manifest, interpreter)
        tree = await self._threads.run(partial(self._store.tree, version.code_sha256, name))
        if tree is not None or self._settings.install == "off":
            return tree or code
        try:
            if not deploying:
                self._check_failed(name)
            return await self._made(name, code, version, manifest, interpreter)
        except DependenciesNotInstalled as failure:  # which may have been of another function
            raise DependenciesNotInstalled(version.function, failure.why, failure.code) from None

    async def sweep(self, used: set[str]) -> None:
        """Delete what no package needs any more, and what crashes have left.

        :param used: the packages that there are.
        """
        work = partial(self._store.sweep, used, self._settings.keep, self._settings.cache_mb << 20)
        gone = await self._threads.run(work)
        if gone:
            self._logger.info("dependencies swept", count=len(gone))

    async def aclose(self) -> None:
        """Stop what is being installed; none of it stays. Closing twice is fine."""
        self._closed = True
        tasks = list(self._making.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._threads.aclose()

    def _say(self, version: FunctionVersion, findings: Findings) -> None:
        for remark in findings.remarks:
            self._logger.warning("dependencies not as they may be meant", function=version.function, why=remark)
        if findings.manifest is not None and self._settings.install == "off":
            self._logger.warning(
                "dependencies not installed",
                function=version.function,
                why=f"its package has {findings.manifest.source} and brings nothing of what that names, and the "
                "setting dependencies.install is off",
            )

    def _check_failed(self, name: str) -> None:
        until, failure = self._failed.get(name, (0.0, None))
        if failure is not None and time.monotonic() < until:
            raise failure

    async def _made(
        self, name: str, code: Path, version: FunctionVersion, manifest: Manifest, interpreter: Interpreter
    ) -> Path:
        key = f"{version.code_sha256}.{name}"
        laying = self._begun(key, partial(self._lay, name, code, version, manifest, interpreter))
        try:
            return await asyncio.shield(laying)
        except asyncio.CancelledError:
            if laying.cancelled() and not (asyncio.current_task() or laying).cancelling():
                raise ShuttingDown from None
            raise

    def _begun(self, key: str, make: Callable[[], Awaitable[Path]]) -> asyncio.Task[Path]:
        """Give the task that makes something, once for all who want it."""
        if self._closed:
            raise ShuttingDown
        task = self._making.get(key)
        if task is None:
            task = self._making[key] = asyncio.create_task(_awaited(make))
            task.add_done_callback(partial(self._finish, key))
        return task

    def _finish(self, key: str, task: asyncio.Task[Path]) -> None:
        del self._making[key]
        if not task.cancelled():
            task.exception()  # whoever asked may have gone

    async def _lay(
        self, name: str, code: Path, version: FunctionVersion, manifest: Manifest, interpreter: Interpreter
    ) -> Path:
        if await self._threads.run(partial(self._store.environment, name)) is None:
            installing = self._begun(name, partial(self._install, name, code, version.function, manifest, interpreter))
            await asyncio.shield(installing)
        return await self._threads.run(partial(self._store.lay, version.code_sha256, code, name))

    async def _install(
        self, name: str, code: Path, function: str, manifest: Manifest, interpreter: Interpreter
    ) -> Path:
        async with self._turns:
            started = time.monotonic()
            try:
                made, by = await self._installed(name, code, function, manifest, interpreter)
            except DependenciesNotInstalled as failure:
                self._failed = {key: kept for key, kept in self._failed.items() if kept[0] > started}
                self._failed[name] = time.monotonic() + _AGAIN_AFTER, failure
                self._logger.warning("dependencies not installed", function=function, why=failure.why)
                raise
        self._failed.pop(name, None)
        seconds = round(time.monotonic() - started, 3)
        self._logger.info("dependencies installed", function=function, environment=name, by=by, seconds=seconds)
        return made

    async def _installed(
        self, name: str, code: Path, function: str, manifest: Manifest, interpreter: Interpreter
    ) -> tuple[Path, str]:
        fetched = await self._threads.run(self._store.fetched)
        installer = await self._threads.run(
            partial(installer_of, function, manifest, interpreter, self._settings, fetched)
        )
        workplace = self._store.workplace()
        folder = await self._threads.run(workplace.__enter__)
        try:
            await self._threads.run(partial(_lay_out, folder, code, manifest, installer))
            most_bytes = self._settings.max_mb << 20
            work = Work(
                command=installer.command,
                variables={**self._variables, "TMPDIR": str(folder / "tmp"), **installer.variables},
                folder=folder / _WORK,
                watched=folder,
                timeout=self._settings.timeout,
                most_bytes=most_bytes * _MEANWHILE,
            )
            try:
                await run(work)
                await self._threads.run(partial(_collect, folder))
                return await self._threads.run(
                    partial(self._store.keep, folder / _RESULT, name, most_bytes)
                ), installer.name
            except Failed as failed:
                raise DependenciesNotInstalled(
                    function, *self._reason(failed, manifest, installer, interpreter)
                ) from None
            except Unfit as unfit:
                raise DependenciesNotInstalled(function, str(unfit)) from None
        finally:
            await asyncio.shield(self._threads.run(partial(workplace.__exit__, None, None, None)))

    def _reason(
        self, failed: Failed, manifest: Manifest, installer: Installer, interpreter: Interpreter
    ) -> tuple[str, str]:
        """Say what has failed, and its code."""
        if installer.name == "pip" and failed.code == WITHOUT_PIP:
            reason = (
                f"Its {manifest.source} needs uv on the host's PATH, or pip in Python {interpreter.version}: "
                f"{interpreter.path} -m ensurepip."
            )
            return reason, "InvalidRuntime"
        said = self._redact(failed.output)
        reason = f"Its {manifest.source} could not be installed: {installer.name} {failed.why}."
        return (f"{reason} Its last lines:\n{said}" if said else reason), "DependencyError"


async def _awaited(make: Callable[[], Awaitable[Path]]) -> Path:
    return await make()


def _name(manifest: Manifest, interpreter: Interpreter) -> str:
    """Name an environment after all that it depends on: what is installed, and what for."""
    series = f"python{interpreter.series}" if manifest.kind == "python" else f"node{interpreter.version.split('.')[0]}"
    machine: tuple[str, ...] = (sys.platform, platform.machine(), *platform.libc_ver())
    if interpreter.path is None:
        machine = ("container", platform_of(interpreter) if manifest.kind == "python" else platform.machine())
    text = "\0".join((manifest.digest, series, *machine))
    return f"{series}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _lay_out(folder: Path, code: Path, manifest: Manifest, installer: Installer) -> None:
    """Put into a folder what an installer works on."""
    for name in (_WORK, _RESULT, "tmp"):
        (folder / name).mkdir()
    work = folder / _WORK
    for name, content in {**manifest.files, **installer.files}.items():
        (work / name).write_bytes(content)
    for name in manifest.copied:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(code / name, work / name)


def _collect(folder: Path) -> None:
    """Take what npm has installed to where the others have installed it, and leave out what is uv's own."""
    modules = folder / _WORK / "node_modules"
    if modules.is_dir() and not modules.is_symlink():
        modules.rename(folder / _RESULT / "node_modules")
    (folder / _RESULT / ".lock").unlink(missing_ok=True)
