"""A Fetcher of one's own: functions are loaded when they are first asked for, from the modules of a folder.

``FUNCTIONS=folder python fetcher.py`` serves ``handler`` of ``folder/NAME.py`` as NAME.
"""

from __future__ import annotations

import os
import runpy
from collections.abc import Mapping
from pathlib import Path

from serverfull import Fetcher, Function, NotFoundError, serve
from serverfull.config import load


class FolderFetcher(Fetcher):
    source = "folder"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: dict[str, Function] = {}

    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        if qualifier not in (None, "$LATEST") or not self._path(name).is_file():
            raise NotFoundError(name)  # as NotFoundError{ID: name}
        if name not in self._loaded:  # the same object for every call: a new one would be a new function
            self._loaded[name] = Function(runpy.run_path(str(self._path(name)))["handler"])
        return self._loaded[name]

    async def list(self) -> Mapping[str, Function]:
        return {path.stem: await self.fetch(path.stem) for path in self._folder.glob("*.py")}

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.py"


if __name__ == "__main__":
    raise SystemExit(serve(FolderFetcher(Path(os.environ["FUNCTIONS"])), load().settings))
