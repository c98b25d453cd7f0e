"""Finds out what a function needs, by loading it as a native Lambda does: which files, and which packages.

`inspect` starts a process of its own, so that what this one has imported does not count; `main` is what runs there.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import serverfull
from serverfull import errors
from serverfull.building.plan import Plan
from serverfull.errors import BuildFailed, TargetImportFailed

_PARENT = Path(serverfull.__file__).parent.parent
_CHILD = "import sys; sys.path.append(sys.argv[1]); from serverfull.building.inspection import main; main(sys.argv[2:])"


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a function needs.

    :param target: its TARGET inside an artifact, ``module:attribute``.
    :param function: its name.
    :param folder: where its module's files are.
    :param files: files and folders there that it has loaded modules from.
    :param modules: every module that was loaded, but those of Python itself.
    """

    target: str
    function: str
    folder: str
    files: tuple[str, ...]
    modules: tuple[str, ...]


def inspect(plan: Plan) -> Inspection:
    """Load the function of a plan, and say what that took.

    :raises ServerfullError: what loading it raised.
    :raises BuildFailed: the process that loads it ended without an answer.
    """
    with tempfile.TemporaryDirectory(prefix="serverfull-build-") as folder:
        answer = Path(folder, "answer.json")
        arguments = [str(_PARENT), str(answer), plan.target, plan.function, "mock" if plan.mock else ""]
        # What the function's module prints is no result of the command.
        done = subprocess.run([sys.executable, "-c", _CHILD, *arguments], stdout=sys.__stderr__, check=False)  # noqa: S603
        if not answer.exists():
            raise BuildFailed(f"loading {plan.target} ended the process with status {done.returncode}")
        found = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in found:
        raise _error(found["error"], found["message"], found["traceback"])
    files, modules = found.pop("files"), found.pop("modules")
    return Inspection(**found, files=tuple(files), modules=tuple(modules))


def _error(kind: str, message: str, traceback: str) -> Exception:
    if kind == TargetImportFailed.__name__:
        return TargetImportFailed(message, traceback)
    if kind == errors.NotFoundError.__name__:
        return errors.NotFoundError("", message)
    known: type[Exception] = getattr(errors, kind, BuildFailed)
    return known(message)


# ------------------------------------------------------------------------------------------------ in the other process


def main(arguments: Sequence[str]) -> None:
    """Load a function and write what was found, or what was raised, to a file."""
    answer, target, function, mock = arguments
    try:
        found = asdict(_found(target, function, bool(mock)))
    except errors.ServerfullError as error:
        found = {
            "error": type(error).__name__,
            "message": str(error),
            "traceback": getattr(error, "user_traceback", ""),
        }
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


def _found(target: str, function: str, mock: bool) -> Inspection:
    from serverfull.fetchers.mocking import MockingFetcher
    from serverfull.fetchers.targets import load_target, place_of
    from serverfull.lambda_mode.starting import fetch, native_handler

    fetcher = load_target(target)
    if mock:
        fetcher = MockingFetcher(fetcher)
    name, _ = asyncio.run(fetch(fetcher, function))
    native_handler(fetcher, name)
    place = place_of(target)
    loaded = sorted(name for name in sys.modules if name.partition(".")[0] not in _NOT_COUNTED)
    folder = Path(place.folder)
    return Inspection(place.target, name, str(folder), tuple(sorted(set(_files(folder, place.first)))), tuple(loaded))


_NOT_COUNTED = {*sys.stdlib_module_names, "__main__", "__mp_main__", "_distutils_hack"}


def _files(folder: Path, first: Path) -> Iterator[str]:
    """Give what modules were loaded from, below a folder: its own files and folders, whole.

    :param first: what the target itself is; all that counts where the folder is one of installed packages.
    """
    yield str(first)
    if folder.name in ("site-packages", "dist-packages"):
        return
    for module in list(sys.modules.values()):
        if module.__name__.startswith("serverfull."):
            continue
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or not Path(file).is_relative_to(folder):
            continue
        top = folder / Path(file).relative_to(folder).parts[0]
        if top != _PARENT / "serverfull" and not _is_environment(Path(file), folder):
            yield str(top)


def _is_environment(file: Path, folder: Path) -> bool:
    """Whether a file belongs to a virtual environment that is inside the folder."""
    between = [parent for parent in file.parents if parent.is_relative_to(folder)]
    return any(parent.name == "site-packages" or (parent / "pyvenv.cfg").exists() for parent in between)
