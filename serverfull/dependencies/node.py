"""What a package for Node.js asks to have installed: ``package.json``, with the lock file beside it.

https://docs.npmjs.com/cli/configuring-npm/package-json says what a dependency may be. Here it is a version or tag in
the registry, or a tarball inside the package. The package's ``.npmrc`` is never read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serverfull.dependencies.manifests import Findings, Manifest, Refused, digest_of, inside, read
from serverfull.domain.json_functions import dumps, loads

_PACKAGE = "package.json"
_LOCKS = ("npm-shrinkwrap.json", "package-lock.json")
"""The first one that is there counts, as for npm."""

_INSTALLED = ("dependencies", "optionalDependencies", "peerDependencies")
_KEPT = ("name", "version", "type", "engines", "os", "cpu", "peerDependenciesMeta", "overrides")
_IGNORED = {
    ".npmrc": "which could name other registries and programs",
    "yarn.lock": "npm chooses the versions",
    "pnpm-lock.yaml": "npm chooses the versions",
}

_NAME = re.compile(r"(@[\w-][\w.-]*/)?[\w-][\w.-]*", re.ASCII)
_RANGE = r"[\w\s^~<>=|*+&-][\w\s.^~<>=|*+&-]*|"
_VERSION = re.compile(_RANGE, re.ASCII)
_ALIAS = re.compile(rf"npm:(@[\w-][\w.-]*/)?[\w-][\w.-]*(@({_RANGE}))?", re.ASCII)
_TARBALL = re.compile(r"file:[\w./+@-]+\.(tgz|tar\.gz|tar)", re.ASCII)
_REFERENCE = re.compile(rf"\$({_NAME.pattern})", re.ASCII)
_ADDRESSES = ("https://", "http://")
_DEEPEST = 50


def find_node(root: Path) -> Findings:
    """Say what a package asks for.

    :raises Refused: it asks for what is not installed here.
    """
    text = read(root, _PACKAGE)
    if text is None or (root / "node_modules").exists():
        return Findings()
    package = _json(_PACKAGE, text)
    if not any(package.get(member) for member in _INSTALLED):
        return Findings()
    if package.get("workspaces"):
        raise Refused(f"{_PACKAGE} has workspaces, which are not installed here. Bring node_modules in the package.")
    manifest = _Reader(root).manifest(package)
    return Findings(
        manifest, [f"{name} is not read: {why}" for name, why in _IGNORED.items() if (root / name).exists()]
    )


class _Reader:
    """Reads what is to be installed, and takes nothing that would lead npm out of the registry and the package."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._tarballs: set[str] = set()

    def manifest(self, package: Mapping[str, Any]) -> Manifest:
        """Put together what npm is given."""
        lock = next((name for name in _LOCKS if (self._root / name).is_file()), None)
        members = (*_INSTALLED, "devDependencies") if lock else _INSTALLED  # npm ci compares them with the lock file's
        written = {member: package[member] for member in _KEPT if member in package}
        for member in members:
            if package.get(member):
                written[member] = self._dependencies(member, package[member])
        self._overrides(package.get("overrides", {}), _PACKAGE)
        files = {_PACKAGE: dumps(written).encode()}
        if lock:
            files[lock] = self._lock(lock)
        copied = sorted(self._tarballs)
        digest = digest_of(self._root, files, copied)
        return Manifest(
            kind="node", source=_PACKAGE, files=files, copied=copied, locked=lock is not None, digest=digest
        )

    def _dependencies(self, member: str, listed: Any) -> Mapping[str, str]:
        if not isinstance(listed, dict):
            raise Refused(f"{member} of {_PACKAGE} is no object.")
        for name, wanted in listed.items():
            _check_name(_PACKAGE, name)
            self._check_wanted(f"{_PACKAGE}: {name}", wanted)
        return listed

    def _check_wanted(self, where: str, wanted: Any) -> None:
        if isinstance(wanted, str):
            if _VERSION.fullmatch(wanted) or _ALIAS.fullmatch(wanted):
                return
            if _TARBALL.fullmatch(wanted):
                self._tarball(where, wanted)
                return
        raise Refused(
            f"{where}: {str(wanted)[:200]!r} is not installed here. What is: versions and tags from the registry, and "
            "file: with a tarball inside the package; no addresses, no folders, no repositories."
        )

    def _tarball(self, where: str, wanted: str) -> None:
        try:
            self._tarballs.add(inside(self._root, wanted.removeprefix("file:")))
        except Refused as refused:
            raise Refused(f"{where}: {refused.reason}") from None

    def _overrides(self, overrides: Any, where: str, depth: int = 0) -> None:
        if not isinstance(overrides, dict) or depth > _DEEPEST:
            raise Refused(f"overrides of {_PACKAGE} cannot be read.")
        for name, wanted in overrides.items():
            if isinstance(wanted, dict):
                self._overrides(wanted, where, depth + 1)
            elif not (isinstance(wanted, str) and _REFERENCE.fullmatch(wanted)):
                self._check_wanted(f"{where}: {name}", wanted)

    def _lock(self, name: str) -> bytes:
        """Read a lock file; npm puts each of its packages to the path that it says, from where it says."""
        text = read(self._root, name)
        assert text is not None
        document = _json(name, text)
        packages = document.get("packages")
        if not isinstance(packages, dict):
            raise Refused(f"{name} is of npm 6 or before. Write it anew: npm install --package-lock-only.")
        for path, entry in packages.items():
            if path:
                self._check_locked(name, path, entry)
        if not self._tarballs:
            return text
        # Where npm puts the registry into all addresses, it does so into those of tarballs: so no others are left.
        kept = {path: _without_address(entry) if path else entry for path, entry in packages.items()}
        return dumps({**document, "packages": kept}).encode()

    def _check_locked(self, name: str, path: str, entry: Any) -> None:
        parts = path.split("/")
        if parts[0] != "node_modules" or any(part in ("", ".", "..") for part in parts) or "\\" in path:
            raise Refused(f"{name}: {path[:200]!r} is no place below node_modules.")
        if not isinstance(entry, dict) or entry.get("link"):
            raise Refused(f"{name}: {path} is a link, which is not installed here.")
        for member in ("resolved", "version"):
            said = entry.get(member, "")
            if isinstance(said, str) and said.startswith("file:"):
                self._check_wanted(f"{name}: {path}", said)
            elif not isinstance(said, str) or not (_VERSION.fullmatch(said) or said.startswith(_ADDRESSES)):
                raise Refused(f"{name}: {path} comes from {str(said)[:200]!r}, which is not installed here.")


def _without_address(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out where a package comes from, unless that is a file: it is looked for in the registry by its name."""
    if entry.get("resolved", "").startswith(_ADDRESSES):
        return {member: said for member, said in entry.items() if member != "resolved"}
    return entry


def _check_name(where: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise Refused(f"{where}: {name[:200]!r} is no name of a package.")


def _json(name: str, text: bytes) -> Mapping[str, Any]:
    try:
        document = loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Refused(f"{name} is no JSON object.")
    return document
