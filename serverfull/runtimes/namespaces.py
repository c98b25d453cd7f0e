"""Import namespaces: code of several functions in one process, each with modules of its own.

Two functions may both ship ``lambda_function.py`` and ``util.py``. Each deployment package gets a `CodeNamespace`: a
package of a made-up name whose path is the package's folder. ``util.py`` is really imported as ``orders-1.util``, so it
stays in ``sys.modules`` beside the other function's, and what looks modules up there (pickle, dataclasses, type hints)
finds the right one. Code that comes from the folder sees an ``__import__`` of its own, which looks among the folder's
modules first, as Python's path on AWS begins with ``/var/task``; `importlib.import_module` does the same while such
code is on the stack.

A namespace is loaded in a thread and may go on importing in any other while its handlers run. Not covered: C code that
looks into ``sys.modules`` itself, extension modules that refuse to be loaded twice in a process, and changes of
``sys.path``, which all functions share.
"""

from __future__ import annotations

import builtins
import importlib
import itertools
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader, SourcelessFileLoader
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

_OWNER = "__serverfull_namespace__"
"""Among the builtins of a namespace's modules: the namespace itself."""

_DEEPEST = 40
"""Frames that ``import_module`` looks through for code of a namespace."""

_numbers = itertools.count(1)


class CodeNamespace:
    """The modules of one deployment package.

    :param root: the folder of the unpacked package.
    :param label: what the made-up package is called after, for stack traces and loggers: the function's name.
    :param beside: folders that modules are looked for in after the package's own.
    :param live: whether files change while they are run: bytecode is told from its source by second and size alone, so
        it is not used.
    """

    def __init__(self, root: Path, label: str, *, beside: Sequence[str] = (), live: bool = False) -> None:
        self.name = f"{label.replace('.', '_')}-{next(_numbers)}"
        self.live = live
        self._path = [str(root), *beside]
        if live:
            importlib.invalidate_caches()  # a folder's list is told to be old by its time alone
        self._owned: dict[str, bool] = {}
        self._closed = False
        self.builtins: dict[str, Any] = {**vars(builtins), "__import__": self._import, _OWNER: self}
        package = ModuleType(self.name)
        package.__path__ = self._path
        package.__spec__ = ModuleSpec(self.name, None, is_package=True)
        setattr(package, _OWNER, self)
        sys.modules[self.name] = package
        _Hook.install()

    def load(self, module: str) -> ModuleType:
        """Import a module of the package, by the name that it has there. Blocks, and runs the module's own code.

        :param module: dotted.
        :raises ModuleNotFoundError: there is no such module, named as the package's own code would name it.
        """
        top = module.partition(".")[0]
        if not self.owns(top):
            raise ModuleNotFoundError(f"No module named {top!r}", name=top)
        try:
            return _plain_import_module(f"{self.name}.{module}")
        except ModuleNotFoundError as missing:
            raise self._as_users_know_it(missing) from None

    def close(self) -> None:
        """Forget the modules; objects of theirs that are still used live on. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        _Hook.uninstall()
        prefix = self.name + "."
        for name in [name for name in list(sys.modules) if name == self.name or name.startswith(prefix)]:
            del sys.modules[name]

    def owns(self, top: str) -> bool:
        """Say whether a top-level module comes from the package.

        A folder without ``__init__.py`` counts only where no other module has its name, as on Python's path.
        """
        owned = self._owned.get(top)
        if owned is None:
            spec = PathFinder.find_spec(f"{self.name}.{top}", self._path) if top else None
            owned = spec is not None and (spec.loader is not None or not _is_known(top))
            self._owned[top] = owned
        return owned

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - the names are those of the builtin
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        """Stand for ``builtins.__import__`` in the package's modules."""
        top = name.partition(".")[0]
        if level or not self.owns(top):
            return builtins.__import__(name, globals, locals, fromlist, level)
        try:
            module = builtins.__import__(f"{self.name}.{name}", globals, locals, fromlist or ("__name__",))
        except ModuleNotFoundError as missing:
            raise self._as_users_know_it(missing) from None
        return module if fromlist else sys.modules[f"{self.name}.{top}"]

    def _as_users_know_it(self, missing: ModuleNotFoundError) -> ModuleNotFoundError:
        prefix = self.name + "."
        return ModuleNotFoundError(
            str(missing).replace(prefix, ""), name=(missing.name or "").removeprefix(prefix), path=missing.path
        )


class _SourceLoader(SourceFileLoader):
    """Loads ``.py`` files. Their bytecode is not written: the folder of a package stays as it was deployed."""

    def exec_module(self, module: ModuleType) -> None:
        _give_builtins(module)
        super().exec_module(module)

    def get_code(self, fullname: str) -> CodeType | None:
        namespace = _namespace_of(fullname)
        if namespace is None or not namespace.live:
            return super().get_code(fullname)
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        """Write nothing."""


class _BytecodeLoader(SourcelessFileLoader):
    """Loads ``.pyc`` files that have no source beside them."""

    def exec_module(self, module: ModuleType) -> None:
        _give_builtins(module)
        super().exec_module(module)


def _give_builtins(module: ModuleType) -> None:
    """Let a module's code see its namespace's builtins; done before that code runs."""
    namespace = _namespace_of(module.__name__)
    if namespace is not None:
        vars(module)["__builtins__"] = namespace.builtins


class _Finder:
    """Finds the modules of namespaces; stands first in ``sys.meta_path``."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if path is None or _namespace_of(name) is None:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin is not None:
            if type(spec.loader) is SourceFileLoader:
                spec.loader = _SourceLoader(name, spec.origin)
            elif type(spec.loader) is SourcelessFileLoader:
                spec.loader = _BytecodeLoader(name, spec.origin)
        return spec


class _Hook:
    """What is changed in the process while there are namespaces; it concerns nothing but them.

    Code that runs here may have taken the finder away, and the next namespace brings it back.
    """

    _lock = threading.Lock()
    _users = 0

    @classmethod
    def install(cls) -> None:
        """Find modules of namespaces."""
        with cls._lock:
            cls._users += 1
            if cls._users == 1:
                importlib.import_module = _import_module
            if _Finder not in sys.meta_path:
                sys.meta_path.insert(0, _Finder)

    @classmethod
    def uninstall(cls) -> None:
        """Leave the process as it was when the last namespace is closed."""
        with cls._lock:
            cls._users -= 1
            if cls._users == 0:
                with suppress(ValueError):
                    sys.meta_path.remove(_Finder)
                if importlib.import_module is _import_module:  # else somebody wraps it
                    importlib.import_module = _plain_import_module


_plain_import_module = importlib.import_module


def _import_module(name: str, package: str | None = None) -> ModuleType:
    """Import a module; where code of a namespace asks, or is asked for by its libraries, among its modules first."""
    if not name.startswith("."):
        namespace = _namespace_on_stack(sys._getframe(1))
        if namespace is not None and namespace.owns(name.partition(".")[0]):
            try:
                return _plain_import_module(f"{namespace.name}.{name}")
            except ModuleNotFoundError as missing:
                raise namespace._as_users_know_it(missing) from None
    return _plain_import_module(name, package)


def _namespace_on_stack(frame: FrameType | None) -> CodeNamespace | None:
    for _ in range(_DEEPEST):
        if frame is None:
            return None
        namespace: CodeNamespace | None = frame.f_builtins.get(_OWNER)
        if namespace is not None:
            return namespace
        frame = frame.f_back
    return None


def _namespace_of(module: str) -> CodeNamespace | None:
    """Give the namespace that a module belongs to by its full name."""
    top = sys.modules.get(module.partition(".")[0])
    # Not getattr: modules may have a __getattr__ of their own that imports, and this is called by every import.
    namespace: CodeNamespace | None = getattr(top, "__dict__", {}).get(_OWNER)
    return namespace


def _is_known(top: str) -> bool:
    """Say whether the process itself can import a module of that name."""
    if top in sys.modules or top in sys.builtin_module_names:
        return True
    spec = PathFinder.find_spec(top)
    return spec is not None and spec.loader is not None
