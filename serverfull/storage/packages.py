"""Deployment packages: whether a zip archive may be unpacked, and unpacking it, whole or not at all.

The code stores call `unpack`; whoever takes a package from a client calls `check` first, which refuses all that
`unpack` would and touches no disk. Both are plain functions that compute and wait: call them on a thread.

What is in a package is decided before its first byte is written (`_Layout`): every entry has a place of its own inside
the folder, and no path leads through a link. Permissions are kept without setuid, setgid, sticky and what lets others
write; links are kept where they lead to something inside. Times and owners are not kept.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from serverfull.domain.limits import (
    PACKAGE_ENTRIES,
    PACKAGE_PATH_BYTES,
    UNZIPPED_PACKAGE_BYTES,
)
from serverfull.errors import InvalidParameterValue
from serverfull.storage.archive import Archive, ArchiveDamaged, Entry
from serverfull.storage.durable import flush_tree, place

NOT_UNZIPPED = "Could not unzip uploaded file. Please check your file, then try to upload again."
EMPTY = "Uploaded file must be a non-empty zip"

_PERMISSIONS = 0o755
_FILE_MODE = 0o644
_FOLDER_MODE = 0o755
_NAME_BYTES = 255
_FOLLOWED = 40
"""Links that Linux follows in one path."""
_LONGEST_PATH = 4_096
_LEADS_OUT = "is a link that leads out of the package or in a circle"
_STEPS = 200_000
"""Parts of targets of links that are looked at in one package, so that links cost less than a second."""
_FROM_ROOT = re.compile(r"/|\\|[A-Za-z]:([\\/]|\Z)")
_UPWARDS = re.compile(r"(\A|[\\/])\.\.([\\/]|\Z)")
"""What leads out of a folder on some system or other: slashes of both kinds count, though ``a\\b`` is a fine name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageFacts:
    """What there is to know about a package.

    :param unzipped_bytes: of all its files; AWS's limit is on these and on those of the function's layers together.
    :param entries: its files, links and folders, also folders that only paths mention.
    """

    unzipped_bytes: int
    entries: int


def check_unzipped_size(size_bytes: int) -> None:
    """Refuse a package, or a function with its layers, that is too large unpacked.

    :raises InvalidParameterValue: it is.
    """
    if size_bytes > UNZIPPED_PACKAGE_BYTES:
        raise InvalidParameterValue(f"Unzipped size must be smaller than {UNZIPPED_PACKAGE_BYTES} bytes")


def check(package: bytes) -> PackageFacts:
    """Say whether a package can be unpacked, down to the last byte; nothing is written.

    :raises InvalidParameterValue: it cannot.
    """
    layout = _read(package)
    try:
        for _, _, entry in layout.files:
            for _ in layout.archive.read(entry):
                pass
    except ArchiveDamaged as damage:
        raise InvalidParameterValue(NOT_UNZIPPED) from damage
    return layout.facts()


def unpack(package: bytes, destination: Path) -> PackageFacts:
    """Unpack a package into a new folder, which appears whole and durable or not at all.

    :param destination: what must not be there yet; its parent must.
    :raises InvalidParameterValue: the package cannot be unpacked.
    :raises FileExistsError: the destination is there by now.
    :raises OSError: the disk is full or fails.
    """
    layout = _read(package)
    folder = Path(tempfile.mkdtemp(prefix=".new-", dir=destination.parent))
    try:
        layout.write(folder)
        flush_tree(folder)
        place(folder, destination)
    except ArchiveDamaged as damage:
        raise InvalidParameterValue(NOT_UNZIPPED) from damage
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # nothing is there any more where all went well
    return layout.facts()


def _read(package: bytes) -> _Layout:
    if not package:
        raise InvalidParameterValue(EMPTY)
    try:
        archive = Archive(package, PACKAGE_ENTRIES)
        if not archive.entries:
            raise InvalidParameterValue(EMPTY)
        check_unzipped_size(sum(entry.size for entry in archive.entries))
        return _Layout(archive)
    except ArchiveDamaged as damage:
        raise InvalidParameterValue(NOT_UNZIPPED) from damage


def _refuse(name: str, why: str) -> NoReturn:
    shown = name if len(name) <= 100 else f"{name[:100]}..."
    raise InvalidParameterValue(f"{NOT_UNZIPPED} The entry {shown!a} {why}.")


class _Layout:
    """Where everything of an archive goes.

    :raises InvalidParameterValue: something would have no place of its own inside the folder.
    """

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.folders: dict[str, int] = {}
        """Paths of folders with their permissions, each behind the one that it is in."""
        self.files: list[tuple[str, int, Entry]] = []
        self.links: dict[str, str] = {}
        self._taken: dict[str, str] = {}  # paths as file systems that ignore case and composition see them
        for entry in archive.entries:
            self._add(entry)
        _refuse_links_out(self.links)

    def facts(self) -> PackageFacts:
        """Sum it up."""
        return PackageFacts(unzipped_bytes=sum(entry.size for _, _, entry in self.files), entries=len(self._taken))

    def _add(self, entry: Entry) -> None:
        name, mode = entry.name, stat.S_IMODE(entry.mode) & _PERMISSIONS
        kind = stat.S_IFMT(entry.mode)
        path = _path(name)
        if name.endswith(("/", "/.")) or name == ".":
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or entry.size:
                _refuse(name, "is a folder by its name and something else by its content")
            if path:
                self._add_folder(path, name, mode | stat.S_IRWXU if entry.mode else _FOLDER_MODE)
            return
        self._add_parents(path, name)
        self._take(path, name)
        if kind == stat.S_IFLNK:
            self.links[path] = self._target(entry)
        elif kind in (0, stat.S_IFREG):
            self.files.append((path, mode | stat.S_IRUSR if entry.mode else _FILE_MODE, entry))
        else:
            _refuse(name, "is neither a file nor a folder nor a link")

    def _add_folder(self, path: str, name: str, mode: int) -> None:
        if path not in self.folders:
            self._add_parents(path, name)
            self._take(path, name)
        self.folders[path] = mode

    def _add_parents(self, path: str, name: str) -> None:
        """Make room for the folders that a path leads through."""
        parent = path.rpartition("/")[0]
        missing = []
        while parent and parent not in self.folders:
            missing.append(parent)
            parent = parent.rpartition("/")[0]
        for folder in reversed(missing):
            self._take(folder, name)
            self.folders[folder] = _FOLDER_MODE

    def _take(self, path: str, name: str) -> None:
        """Take a path; no other may be the same, or be the same where case and composition do not count."""
        folded = path if path.isascii() and path.islower() else _folded(path)
        other = self._taken.get(folded)
        if other is not None:
            _refuse(name, "is there twice, or as file and folder" if other == path else f"has the place of {other!a}")
        if len(self._taken) >= PACKAGE_ENTRIES:
            _refuse(name, f"is beyond the {PACKAGE_ENTRIES} that a package may have")
        self._taken[folded] = path

    def _target(self, entry: Entry) -> str:
        if not 0 < entry.size <= PACKAGE_PATH_BYTES:
            _refuse(entry.name, "is a link whose target is empty or too long")
        target = os.fsdecode(b"".join(self.archive.read(entry)))
        if "\0" in target:
            _refuse(entry.name, "is a link to a name with a NUL")
        return target

    def write(self, root: Path) -> None:
        """Write everything below an empty folder that nobody else can reach.

        Links come last, so nothing is written through one.
        """
        base = f"{root}/"
        for path in self.folders:
            os.mkdir(base + path, stat.S_IRWXU)  # noqa: PTH102 (a third of the time of Path.mkdir)
        for path, mode, entry in self.files:
            self._write_file(base + path, mode, entry)
        for path, target in self.links.items():
            os.symlink(target, base + path)  # noqa: PTH211 (a Path would change the target)
        for path, mode in self.folders.items():
            os.chmod(base + path, mode)  # noqa: PTH101
        root.chmod(_FOLDER_MODE)

    def _write_file(self, path: str, mode: int, entry: Entry) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, stat.S_IRUSR | stat.S_IWUSR)
        try:
            for piece in self.archive.read(entry):
                rest = memoryview(piece)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)


def _path(name: str) -> str:
    """Turn the name of an entry into a path without ``.`` and empty parts."""
    if not name or "\0" in name:
        _refuse(name, "has no name that a file can have")
    if _FROM_ROOT.match(name) or (".." in name and _UPWARDS.search(name)):
        _refuse(name, "leads out of the package")
    path = name
    if name.startswith(".") or name.endswith("/") or "//" in name or "/." in name:
        path = "/".join(part for part in name.split("/") if part not in {"", "."})
    if len(path) > _NAME_BYTES or not path.isascii():
        encoded = path.encode()
        if len(encoded) > PACKAGE_PATH_BYTES or max(map(len, encoded.split(b"/"))) > _NAME_BYTES:
            _refuse(name, "has a name that is too long")
    return path


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


def _refuse_links_out(links: dict[str, str]) -> None:
    """Let links lead to what is inside alone, also by way of other links; whether it is there does not matter."""
    resolving = _Resolving(links)
    for path in links:
        resolving.follow(path, 0)


class _Resolving:
    """Follows links as the system would, inside the tree that they will be in."""

    def __init__(self, links: dict[str, str]) -> None:
        self._links = links
        self._known: dict[str, str] = {}
        self._steps = 0

    def follow(self, path: str, followed: int) -> str:
        """Give the path that a link leads to, with no link in it; empty for the root.

        :raises InvalidParameterValue: it leads out, or in a circle.
        """
        known = self._known.get(path)
        if known is not None:
            return known
        target = self._links[path]
        if target.startswith("/") or followed >= _FOLLOWED:
            _refuse(path, _LEADS_OUT)
        parts = target.split("/")
        self._steps += len(parts)
        if self._steps > _STEPS:
            _refuse(path, "is one link too many")
        at = path.rpartition("/")[0]
        for part in parts:
            at = self._step(at, part, path, followed)
        self._known[path] = at
        return at

    def _step(self, at: str, part: str, path: str, followed: int) -> str:
        if part in {"", "."}:
            return at
        if part == "..":
            if not at:
                _refuse(path, _LEADS_OUT)
            return at.rpartition("/")[0]
        through = f"{at}/{part}" if at else part
        if len(through) > _LONGEST_PATH:
            _refuse(path, _LEADS_OUT)
        return self.follow(through, followed + 1) if through in self._links else through
