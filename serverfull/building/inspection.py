"""Finds out what a function needs, by loading it as a native Lambda does: which files, and which packages.

`inspect` starts a process of its own, so that what this one has imported does not count; `main` is what runs there.
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import serverfull
from serverfull import errors
from serverfull.building.plan import Plan
from serverfull.errors import BuildFailed, TargetImportFailed
from serverfull.lambda_mode.names import ARTIFACT_MODULE

if TYPE_CHECKING:
    from serverfull.fetchers.targets import TargetPlace

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
    :param imported: the outermost packages and modules that the function's own code imported when it was loaded, and
        their files.
    """

    target: str
    function: str
    folder: str
    files: tuple[str, ...]
    modules: tuple[str, ...]
    imported: Mapping[str, str] = field(default_factory=dict)


def inspect(plan: Plan) -> Inspection:
    """Load the function of a plan, and say what that took.

    :raises ServerfullError: what loading it raised.
    :raises BuildFailed: the process that loads it ended without an answer.
    """
    with tempfile.TemporaryDirectory(prefix="serverfull-build-") as folder:
        answer = Path(folder, "answer.json")
        arguments = [str(_PARENT), str(answer), plan.target, plan.function, "mock" if plan.mock else ""]
        # What the function's module prints is no result of the command.
        # -P: files of the current folder must not hide what serverfull imports; loading TARGET makes them importable.
        command = [sys.executable, "-P", "-c", _CHILD, *arguments]
        done = subprocess.run(command, stdout=sys.__stderr__, check=False)  # noqa: S603
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
    # Where serverfull finds orjson it uses it, but it can do without: what counts is whether the function imports it.
    sys.modules["orjson"] = None  # type: ignore[assignment]
    from serverfull.fetchers.mocking import MockingFetcher
    from serverfull.fetchers.targets import load_target, place_of
    from serverfull.lambda_mode.starting import fetch, native_handler

    del sys.modules["orjson"]
    before = frozenset(sys.modules)
    fetcher = load_target(target)
    if mock:
        fetcher = MockingFetcher(fetcher)
    name, _ = asyncio.run(fetch(fetcher, function))
    place = place_of(target)
    _check_name(place)
    imported = dict(_outermost(sys.modules.keys() - before, place.folder))
    native_handler(fetcher, name)
    loaded = sorted(name for name in sys.modules if name.partition(".")[0] not in _NOT_COUNTED)
    files = tuple(sorted(set(_files(place.folder, place.first))))
    return Inspection(place.target, name, str(place.folder), files, tuple(loaded), imported)


_NOT_COUNTED = {*sys.stdlib_module_names, "__main__", "__mp_main__", "_distutils_hack"}


def _check_name(place: TargetPlace) -> None:
    """Refuse a module that its name would not bring back: in an artifact it is imported from the root of the path."""
    module = place.target.rpartition(":")[0]
    outermost = module.partition(".")[0]
    if outermost in {*_NOT_COUNTED, "serverfull", "awslambdaric", ARTIFACT_MODULE}:
        raise BuildFailed(f"{place.first} would hide the module {outermost!r} that is needed beside it: rename it")
    if place.first.suffix == ".py" and outermost != place.first.stem:
        raise BuildFailed(f"{place.first} cannot be imported by its name, because of the dot in it: rename it")


def _outermost(names: Iterable[str], folder: Path) -> Iterator[tuple[str, str]]:
    """Give the outermost package, or the module, of each module, and its file, which namespace packages do not have.

    Only what code that is not installed asks for: installed packages bring what they need, and do without the rest. And
    what the function itself loads from files of its folder, under names of its own, is not among them.
    """
    path = {Path(entry).absolute() for entry in sys.path}
    asked_for = set(_asked_for(names))
    for name in sorted(names):
        if name.partition(".")[0] in {*_NOT_COUNTED, "serverfull"}:
            continue
        packages = accumulate(name.split("."), "{}.{}".format)
        outer = next((package for package in packages if getattr(sys.modules.get(package), "__file__", None)), None)
        if outer is None or not any(f"{asked}.".startswith(f"{outer}.") for asked in asked_for):
            continue
        file = Path(str(sys.modules[outer].__file__))
        if not _is_pythons(file) and (not file.is_relative_to(folder) or _root(outer, file) in path):
            yield outer, str(file)


def _asked_for(names: Iterable[str]) -> Iterator[str]:
    """Give what stands in the import statements of modules that are neither installed nor Python's own."""
    for name in names:
        file = Path(str(getattr(sys.modules.get(name), "__file__", None)))
        if file.suffix != ".py" or {"site-packages", "dist-packages"} & set(file.parts) or _is_pythons(file):
            continue
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_pythons(file: Path) -> bool:
    """Whether a file is of the standard library; not all of its modules are in `sys.stdlib_module_names`."""
    library = Path(os.__file__).parent
    return file.is_relative_to(library) and not file.is_relative_to(library / "site-packages")


def _root(name: str, file: Path) -> Path | None:
    """Say which entry of ``sys.path`` a module with this file is found in; None: in none, by this name."""
    source = file.parent if file.stem == "__init__" else file.with_name(file.name.partition(".")[0])
    parts = name.split(".")
    return source.parents[len(parts) - 1] if source.parts[-len(parts) :] == tuple(parts) else None


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
        if top.name == "__init__.py":  # of the folder itself, which was found as a package in the folder above
            continue
        if top != _PARENT / "serverfull" and not _is_environment(Path(file), folder):
            yield str(top)


def _is_environment(file: Path, folder: Path) -> bool:
    """Whether a file belongs to a virtual environment that is inside the folder."""
    between = [parent for parent in file.parents if parent.is_relative_to(folder)]
    return any(parent.name == "site-packages" or (parent / "pyvenv.cfg").exists() for parent in between)
