"""Says what runs a function, for which its dependencies are installed then: an interpreter here, or one in a container.

It goes by the same settings and tags as the runtimes do, which decide again with the first call.
"""

from __future__ import annotations

import asyncio
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from serverfull.runtimes.choosing import EXECUTION_TAG
from serverfull.runtimes.docker.images import parsed
from serverfull.runtimes.process.interpreters import Interpreter, Interpreters, Missing

if TYPE_CHECKING:
    from serverfull.config import Settings


class Targets:
    """Finds what runs functions."""

    def __init__(self, settings: Settings) -> None:
        self._mode = settings.execution.mode
        self._interpreters = Interpreters(settings.execution.other_python)
        self._exact = Interpreters("error")
        self._images = parsed(settings.docker.images)

    async def find(self, runtime: str, tags: Mapping[str, str]) -> Interpreter | None:
        """Give what runs functions of a runtime that have these tags, without a path where it is in a container.

        None: it is not on this machine. Interpreters are looked for on a thread.
        """
        return await asyncio.to_thread(self._find, runtime, tags.get(EXECUTION_TAG, self._mode))

    def _find(self, runtime: str, mode: str) -> Interpreter | None:
        if mode == "inprocess":
            version = platform.python_version()
            own = Interpreter(runtime=runtime, kind="python", path=Path(sys.executable), version=version)
            return own if runtime.startswith("python") else None
        if mode == "docker" or (mode == "auto" and self._is_in_container(runtime)):
            return _contained(runtime)
        found = self._interpreters.find(runtime, anew=True)
        return None if isinstance(found, Missing) else found

    def _is_in_container(self, runtime: str) -> bool:
        return runtime in self._images and isinstance(self._exact.find(runtime), Missing)


def _contained(runtime: str) -> Interpreter:
    if runtime.startswith("python"):
        return Interpreter(runtime=runtime, kind="python", version=runtime.removeprefix("python"))
    return Interpreter(runtime=runtime, kind="node", version=runtime.removeprefix("nodejs").removesuffix(".x"))
