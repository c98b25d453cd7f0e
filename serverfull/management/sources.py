"""Where the code of a function lies: what GetFunction tells about it.

A function of the operator's own Python modules has no deployment package. The source file that defines its handler
stands for one: its size, its hash and the time it was changed. Of a function that is fetched from a folder all files
do, with their paths; other fetchers say it themselves. All functions here block on the file system and run in a thread.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import inspect
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.domain.source_code import SourceCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serverfull.domain.functions import Function

_PIECE = 1 << 20

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_source(function: Function) -> SourceCode:
    """Look at the file that defines a function's handler, or at all files that are its code. Blocks.

    A handler that was made in C, at a prompt or by ``exec`` has no file, and one may have been deleted since: then the
    handler's name stands in for the content.
    """
    if isinstance(function.handler, DeployedHandler):
        source = function.handler.source
        return source if isinstance(source, SourceCode) else _read_files(source)
    path = _source_file(function.handler)
    if path is not None:
        try:
            content, changed = path.read_bytes(), path.stat().st_mtime
        except OSError:
            pass
        else:
            moment = datetime.fromtimestamp(changed, UTC)
            return SourceCode(path.as_uri(), len(content), _base64_sha256(content), moment)
    return SourceCode(f"module:{function.handler_name}", 0, _base64_sha256(function.handler_name.encode()), EPOCH)


def _read_files(place: Path) -> SourceCode:
    """Look at a file, or at all that is in a folder. What goes away meanwhile is left out."""
    digest, size, changed = hashlib.sha256(), 0, 0.0
    for path in _files(place):
        try:
            with path.open("rb") as file:
                told = os.fstat(file.fileno())
                digest.update(f"{path.relative_to(place)}\0{told.st_size}\0".encode("utf-8", "surrogateescape"))
                while piece := file.read(_PIECE):
                    digest.update(piece)
        except OSError:
            continue
        size, changed = size + told.st_size, max(changed, told.st_mtime)
    sha256 = base64.b64encode(digest.digest()).decode("ascii")
    return SourceCode(place.as_uri(), size, sha256, datetime.fromtimestamp(changed, UTC))


def _files(place: Path) -> Iterator[Path]:
    """Give the files of a folder in the order of their names, or the one that it is itself; links are not followed."""
    if place.is_file():
        yield place
    for folder, folders, names in os.walk(place):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            path = Path(folder, name)
            if stat.S_ISREG(path.lstat().st_mode):
                yield path


def _source_file(handler: Any) -> Path | None:
    while isinstance(handler, functools.partial):
        handler = handler.func
    try:
        handler = inspect.unwrap(handler)
        name = inspect.getsourcefile(handler if _has_source(handler) else type(handler))
    except (TypeError, ValueError, OSError):  # nothing that inspect knows, a cycle of wrappers, a module without file
        return None
    path = Path(name).absolute() if name else None
    return path if path is not None and path.is_file() else None


def _has_source(handler: Any) -> bool:
    return inspect.isroutine(handler) or inspect.isclass(handler)


def _base64_sha256(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode("ascii")
