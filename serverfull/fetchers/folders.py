"""Looks at a folder of functions: what is in it, what each is to be called by, and whether it is as it was.

Everything here blocks on the disk; `serverfull.fetchers.directory` calls `look` on a thread, one look at a time.
Nothing of a function is run or imported: of a Python file the names are read that it defines at its top.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from serverfull.domain.json_functions import loads
from serverfull.domain.manifests import Manifest, parse_manifest, with_handler, with_runtime
from serverfull.errors import ManifestInvalid

MANIFEST = "function.json"
"""The file in a function's folder that says how it is to be run."""

BUILD, CODE = "Build", "Code"
"""Its members that no configuration of AWS's has: the command that makes the code, and the folder where that is."""

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}", re.ASCII)

_NOT_LOOKED_INTO = frozenset(("__pycache__", "node_modules"))
"""Folders whose files are no part of what a change is noticed by, like those that begin with a dot: they are large, and
written by programs."""

_MODULES = ("app", "main", "handler", "index", "function")
_ATTRIBUTES = ("lambda_handler", "handler")

_MOST_OF_A_MANIFEST = 1 << 20
_MOST_OF_A_MODULE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A function as it lies in the folder; equal to another look's where nothing has changed.

    :param manifest: with runtime and handler.
    :param root: the folder that its code is imported from.
    :param place: the file or the folder that it is.
    :param layers: the folders of its layers, the first one at the bottom.
    :param state: of its files: their names, sizes and times.
    :param build: the command that makes its code of what is there; None: it is code as it is.
    """

    manifest: Manifest
    root: Path
    place: Path
    layers: tuple[Path, ...]
    state: bytes
    build: str | None = None


Looked: TypeAlias = "Mapping[str, Placed | str]"
"""What is in a folder by the names of the functions; a text says why one cannot be served."""


def look(root: Path) -> Looked:
    """Look at all functions of a folder.

    :raises OSError: the folder cannot be read.
    """
    root = root.resolve(strict=True)
    with os.scandir(root) as entries:
        names = sorted(entry.name for entry in entries)
    shared: bytes | None = None  # of what begins with an underscore
    found: dict[str, Placed | str] = {}
    for entry in names:
        place = root / entry
        name = entry if place.is_dir() else place.stem
        if shared is None and entry.endswith(".py"):
            shared = _state_of(root / each for each in names if each.startswith("_"))
        try:
            if not _is_function(place):
                continue
            if name in found:
                raise ManifestInvalid(str(place), f"there is {root / name} too: rename one of them")
            found[name] = _placed(root, place, name, shared or b"")
        except ManifestInvalid as wrong:
            found[name] = str(wrong)
        except FileNotFoundError:  # deleted just now
            continue
        except OSError as error:
            found[name] = f"{place} cannot be read: {error.strerror or error}"
    return found


def _is_function(place: Path) -> bool:
    """Say whether an entry of the folder is a function."""
    if place.name.startswith((".", "_")):
        return False
    if place.is_dir():
        return any(place.iterdir())
    return place.suffix == ".py" and (place.is_file() or place.is_symlink())


def _placed(root: Path, place: Path, name: str, shared: bytes) -> Placed:
    if _NAME.fullmatch(name) is None:
        raise ManifestInvalid(str(place), "its name takes letters, digits, hyphens and underscores, 64 at most")
    if not _real(place).is_relative_to(root):
        raise ManifestInvalid(str(place), f"it is a link that leads out of {root}")
    if place.is_dir():
        return _folder(root, place, name)
    manifest = _read(root, place.with_suffix(".json"))
    manifest = with_runtime(manifest, [place.name], str(place))
    manifest = replace(manifest, handler=manifest.handler or f"{place.stem}.{_attribute(place, name)}")
    layers = _layers(root, manifest, str(place.with_suffix(".json")))
    state = shared + _state_of((place, place.with_suffix(".json"), *layers))
    return Placed(manifest=manifest, root=root, place=place, layers=layers, state=state)


def _folder(root: Path, place: Path, name: str) -> Placed:
    file = place / MANIFEST
    document = _document(root, file)
    build, code = _text_of(document, BUILD, file), _code(document, place, file)
    manifest = parse_manifest({key: document[key] for key in document if key not in (BUILD, CODE)}, str(file))
    names = sorted(entry.name for entry in os.scandir(code)) if code.is_dir() else []  # built later, perhaps
    where = str(file) if file.exists() else str(place)
    manifest = with_runtime(manifest, names, where)
    if manifest.handler is None and str(manifest.runtime).startswith("python"):
        manifest = replace(manifest, handler=_python_handler(code, name, names, where))
    manifest = with_handler(manifest, where)
    layers = _layers(root, manifest, where)
    state = _state_of((place, *layers))
    return Placed(manifest=manifest, root=code, place=place, layers=layers, state=state, build=build)


def build_command(folder: Path) -> str | None:
    """Give the command that makes the code of a folder of what is in it; None: it is code as it is. Blocks.

    :raises ManifestInvalid: what stands there is none.
    """
    file = folder / MANIFEST
    return _text_of(_document(folder, file), BUILD, file)


def is_as_seen(found: Placed) -> bool:
    """Say whether the files of a function with a folder of its own are still those that were seen."""
    return _state_of((found.place, *found.layers)) == found.state


def _real(path: Path, *, strict: bool = True) -> Path:
    """Follow all links.

    :raises OSError: there is nothing, where it is strict.
    :raises ManifestInvalid: they lead in a circle.
    """
    try:
        return path.resolve(strict)
    except RuntimeError:  # of Python before 3.13
        raise ManifestInvalid(str(path), "it is a link that leads to itself") from None


def _text_of(document: Mapping[str, Any], member: str, file: Path) -> str | None:
    value = document.get(member)
    if value is not None and (not isinstance(value, str) or not value.strip() or "\0" in value):
        raise ManifestInvalid(str(file), f"{member}: it has to be a text that is not empty")
    return value


def _code(document: Mapping[str, Any], place: Path, file: Path) -> Path:
    """Find the folder that the code is in; one that is built need not be there."""
    text = _text_of(document, CODE, file)
    if text is None:
        return place.resolve()  # a function may be a link to another folder of its root
    code = _real(place / text, strict=False)
    if not code.is_relative_to(place.resolve()):
        raise ManifestInvalid(str(file), f"{CODE}: {text} is no folder below {place}")
    if BUILD not in document and not code.is_dir():
        raise ManifestInvalid(str(file), f"{CODE}: there is no folder {code}")
    return code


def _read(root: Path, file: Path) -> Manifest:
    """Read a manifest, which need not be there.

    :raises ManifestInvalid: it is none.
    """
    return parse_manifest(_document(root, file), str(file))


def _document(root: Path, file: Path) -> Any:
    if not file.exists():
        if file.is_symlink():
            raise ManifestInvalid(str(file), "it is a link that leads nowhere")
        return {}
    if not file.resolve().is_relative_to(root):
        raise ManifestInvalid(str(file), f"it is a link that leads out of {root}")
    if not file.is_file():
        raise ManifestInvalid(str(file), "it is no file")
    with file.open("rb") as opened:
        content = opened.read(_MOST_OF_A_MANIFEST + 1)
    if len(content) > _MOST_OF_A_MANIFEST:
        raise ManifestInvalid(str(file), f"it is longer than {_MOST_OF_A_MANIFEST} bytes")
    try:
        document = loads(content)
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(str(file), f"it is no JSON: {error}") from None
    if not isinstance(document, dict):
        parse_manifest(document, str(file))  # says what it is
    return document


def _layers(root: Path, manifest: Manifest, where: str) -> tuple[Path, ...]:
    """Find the folders that a manifest names as layers, from the folder of all functions on."""
    found = []
    for number, layer in enumerate(manifest.layers):
        place = _real(root / layer, strict=False)
        if not place.is_relative_to(root) or place == root:
            raise ManifestInvalid(where, f"Layers[{number}]: {layer} is no folder below {root}")
        if not place.is_dir():
            raise ManifestInvalid(where, f"Layers[{number}]: there is no folder {place}")
        found.append(place)
    return tuple(found)


def _python_handler(place: Path, name: str, names: Sequence[str], where: str) -> str | None:
    """Guess ``module.attribute`` of a folder; None: AWS's usual one."""
    modules = [file.removesuffix(".py") for file in names if file.endswith(".py")]
    wanted = ("lambda_function", name, name.replace("-", "_"), *_MODULES)
    module = next((module for module in wanted if module in modules), None)
    if module is None and len(modules) == 1:
        module = modules[0]
    if module is None:
        there = " or ".join(f"{each}.py" for each in modules) or "its files"
        raise ManifestInvalid(where, f"Handler: say which of {there} has it, and its name, such as app.handler")
    return f"{module}.{_attribute(place / f'{module}.py', name)}"


def _attribute(file: Path, name: str) -> str:
    """Guess which name of a Python file is the handler. Where none can be it, the runtime tells what is wrong."""
    defined = _defined(file)
    for wanted in (*_ATTRIBUTES, name.replace("-", "_"), "main"):
        if wanted in defined:
            return wanted
    functions = [each for each, is_function in defined.items() if is_function and not each.startswith("_")]
    return functions[0] if len(functions) == 1 else _ATTRIBUTES[0]


def _defined(file: Path) -> Mapping[str, bool]:
    """Give the names that a Python file binds at its top, and which of them are functions defined there."""
    try:
        with file.open("rb") as opened:
            module = ast.parse(opened.read(_MOST_OF_A_MODULE))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return {}
    names: dict[str, bool] = {}
    for statement in module.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            names[statement.name] = True
        elif isinstance(statement, ast.Assign):
            names.update({target.id: False for target in statement.targets if isinstance(target, ast.Name)})
        elif isinstance(statement, ast.ImportFrom | ast.Import):
            names.update({alias.asname or alias.name: False for alias in statement.names})
    return names


def _state_of(places: Iterable[Path]) -> bytes:
    """Digest names, sizes and times of all files there; what is written while it is looked at is seen by the next."""
    digest = hashlib.blake2b(digest_size=16)
    for place in places:
        digest.update(b"\0place\0" + os.fsencode(place))
        for path, told in _walk(place):
            link = os.fsencode(Path(path).readlink()) if stat.S_ISLNK(told.st_mode) else b""
            facts = f"\0{told.st_mode}\0{told.st_size}\0{told.st_mtime_ns}\0{told.st_ino}\0"
            digest.update(os.fsencode(path) + facts.encode() + link)
    return digest.digest()


def _walk(place: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Give all files below a place, or itself; links below it are told and not followed."""
    with suppress(OSError):
        if not place.is_dir():
            yield str(place), place.stat()
    folders = [str(place)] if place.is_dir() else []
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:  # gone meanwhile
            continue
        for entry in found:
            if not entry.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    yield entry.path, entry.stat(follow_symlinks=False)
            elif not entry.name.startswith(".") and entry.name not in _NOT_LOOKED_INTO:
                folders.append(entry.path)
