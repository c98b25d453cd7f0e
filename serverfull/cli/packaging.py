"""Makes a deployment package of a directory or of one file: the same files always give the same bytes.

Left out are caches, version control and the host's own state (`LEFT_OUT`), virtual environments of any name, and what a
file ``.serverfullignore`` in the directory names: a pattern on each line, for names or for whole paths. Links are kept
as links; what they lead to has to be in the package. Directories without files are not kept.
"""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import BytesIO
from pathlib import Path

from serverfull.building.archive import entry_of
from serverfull.domain.limits import UNZIPPED_PACKAGE_BYTES, ZIPPED_PACKAGE_BYTES
from serverfull.errors import ServerfullError

IGNORE_FILE = ".serverfullignore"
LEFT_OUT = (
    *("__pycache__", "*.pyc", ".mypy_cache", ".pytest_cache", ".ruff_cache"),
    *(".git", ".hg", ".svn", ".venv", ".serverfull", IGNORE_FILE),
)
_ENVIRONMENT = "pyvenv.cfg"
"""The file that makes a directory a virtual environment, which is this machine's alone."""

_LINK = stat.S_IFLNK | 0o777


class PackageRefused(ServerfullError):
    """What should be deployed is nothing that can be a deployment package."""


@dataclass(frozen=True, slots=True)
class SourcePackage:
    """What is deployed.

    :param name: of the directory or file that it was made of, without a suffix.
    :param content: the bytes of the zip archive.
    """

    name: str
    content: bytes


def package_of(source: Path) -> SourcePackage:
    """Pack a directory or a file; a .zip file is taken as it is.

    :raises PackageRefused: it cannot be packed, or is larger than packages may be.
    """
    resolved = source.resolve()
    try:
        if source.is_dir():
            return SourcePackage(resolved.name, _packed(_files(source), source))
        if source.suffix == ".zip":
            _check_size(source.stat().st_size, ZIPPED_PACKAGE_BYTES, "zipped")
            return SourcePackage(source.stem, source.read_bytes())
        if source.suffix == ".py":
            return SourcePackage(resolved.stem, _packed([resolved], resolved.parent))
    except OSError as wrong:
        raise PackageRefused(f"{wrong.filename or source} cannot be read: {wrong.strerror}") from None
    raise PackageRefused(f"{source} is neither a directory nor a .py file nor a .zip file")


def _packed(files: Sequence[Path], folder: Path) -> bytes:
    if not files:
        raise PackageRefused(f"{folder} has no files to deploy")
    _check_size(sum(file.lstat().st_size for file in files), UNZIPPED_PACKAGE_BYTES, "unzipped")
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in files:
            _add(archive, file, folder)
            _check_size(buffer.tell(), ZIPPED_PACKAGE_BYTES, "zipped")
    content = buffer.getvalue()
    _check_size(len(content), ZIPPED_PACKAGE_BYTES, "zipped")
    return content


def _add(archive: zipfile.ZipFile, file: Path, folder: Path) -> None:
    name, mode = file.relative_to(folder).as_posix(), file.lstat().st_mode
    try:
        name.encode()
    except UnicodeEncodeError:
        raise PackageRefused(f"the name of {name!a} is not UTF-8") from None
    entry = entry_of(name, program=bool(mode & stat.S_IXUSR))
    if stat.S_ISLNK(mode):
        entry.external_attr = _LINK << 16
        entry.compress_type = zipfile.ZIP_STORED
        archive.writestr(entry, os.fsencode(_target(file, folder)))
    elif stat.S_ISREG(mode):
        archive.writestr(entry, file.read_bytes(), compresslevel=9)
    else:
        raise PackageRefused(f"{name} is neither a file nor a folder nor a link; {IGNORE_FILE} can leave it out")


def _target(link: Path, folder: Path) -> str:
    target = os.readlink(link)  # noqa: PTH115 (a Path would change the target)
    leads_to = os.path.realpath(link)
    if os.path.isabs(target) or not Path(leads_to).is_relative_to(folder.resolve()):  # noqa: PTH117
        raise PackageRefused(
            f"{link.relative_to(folder)} is a link to {target}, which is not in the package; copy what it leads to, "
            f"or leave it out with {IGNORE_FILE}"
        )
    return target


def _files(folder: Path) -> list[Path]:
    """Give the files and links below a folder, sorted by their paths."""
    ignored = _ignored(folder)
    return sorted(_below(folder, folder, ignored), key=lambda file: file.relative_to(folder).as_posix())


def _below(folder: Path, root: Path, ignored: Callable[[Path], bool]) -> Iterator[Path]:
    paths = list(folder.iterdir())
    if folder != root and any(path.name == _ENVIRONMENT for path in paths):
        return
    for path in paths:
        if ignored(path.relative_to(root)):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _below(path, root, ignored)
        else:
            yield path


def _ignored(folder: Path) -> Callable[[Path], bool]:
    """Make what says whether a path is left out."""
    patterns = [*LEFT_OUT]
    own = folder / IGNORE_FILE
    if own.is_file():
        lines = (line.strip() for line in own.read_text("utf-8", "replace").splitlines())
        patterns += [line.strip("/") for line in lines if line.strip("/") and not line.startswith("#")]
    return lambda path: any(
        fnmatchcase(path.name, pattern) or fnmatchcase(path.as_posix(), pattern) for pattern in patterns
    )


def _check_size(size: int, most: int, how: str) -> None:
    if size > most:
        raise PackageRefused(f"the package is larger than a host takes: {most // 1024 // 1024} MB {how}")
