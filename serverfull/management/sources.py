"""Where the code of a function lies: what GetFunction tells about it.

A function of the operator's own Python modules has no deployment package. The source file that defines its handler
stands for one: its size, its hash and the time it was changed. All functions here block on the file system and run in a
thread.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import inspect
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serverfull.domain.functions import Function

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class SourceCode:
    """The code behind a function.

    :param location: a ``file:`` URL, or ``module:`` and a name where there is no file to read.
    :param size_bytes: of the file; 0 where there is none.
    :param sha256: of the file's bytes, in base64 as AWS gives CodeSha256.
    :param changed: when the file was last written.
    """

    location: str
    size_bytes: int
    sha256: str
    changed: datetime


def read_source(function: Function) -> SourceCode:
    """Look at the file that defines a function's handler. Blocks.

    A handler that was made in C, at a prompt or by ``exec`` has no file, and one may have been deleted since: then the
    handler's name stands in for the content.
    """
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
