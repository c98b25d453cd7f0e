"""Turns the TARGET of a command (``module:attribute`` or ``file.py:attribute``) into a Fetcher.

Called once, before the host starts, in the main thread. It imports the user's module, so it changes ``sys.path`` as
``python file.py`` would: the folder stays there, because handlers may import more of their modules when they run.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple, TypeVar

from serverfull.domain.functions import Function
from serverfull.errors import TargetAttributeMissing, TargetImportFailed, TargetInvalid, TargetNotFound
from serverfull.fetchers.chain import ChainFetcher
from serverfull.fetchers.static import StaticFetcher
from serverfull.interfaces import Fetcher

DEFAULT_ATTRIBUTE = "functions"

_PACKAGE = str(Path(__file__).parent.parent)
_Result = TypeVar("_Result")


class _Target(NamedTuple):
    text: str
    place: str
    attribute: str
    explicit: bool

    @property
    def is_file(self) -> bool:
        return self.place.endswith(".py") or "/" in self.place

    @property
    def what(self) -> str:
        return f"file {self.place}" if self.is_file else f"module {self.place!r}"


def load_target(text: str, *, in_folder: bool = True) -> Fetcher:
    """Import what TARGET names and give its functions as a Fetcher.

    :param text: ``module:attribute`` or ``path/file.py:attribute``; without ``:attribute`` it is ``functions``. The
        attribute is a mapping of name → handler or Function, a list of those (served under their ``__name__``), a
        Fetcher, one handler or Function, or a module that has ``functions``.
    :param in_folder: modules of the current folder can be imported, before all others. No for artifacts, which have
        everything inside.
    :raises TargetNotFound: there is no such module or file.
    :raises TargetImportFailed: the user's code failed while it was imported.
    :raises TargetAttributeMissing: the module has no such attribute.
    :raises TargetInvalid: the attribute is nothing that can be served.
    """
    target = _parse(text)
    module = _import(target, str(Path.cwd()) if in_folder else None)
    return _fetcher(target, _attribute(target, module))


def load_targets(
    texts: Sequence[str],
    load: Callable[[str], Fetcher] = load_target,
    elsewhere: Mapping[str, Callable[[str], Fetcher]] = MappingProxyType({}),
) -> Fetcher:
    """Give what ``serverfull serve`` serves: of several TARGETs each hides functions of the later ones, name by name.

    :param texts: each is what `load_target` takes, or a folder of functions, which has a slash in it: ``./functions``.
    :param load: does what `load_target` does.
    :param elsewhere: gives the fetcher of a URL, by its scheme.
    :raises TargetError: one of them cannot be turned into functions.
    """
    fetchers = [_from_anywhere(text, load, elsewhere) for text in texts]
    return fetchers[0] if len(fetchers) == 1 else ChainFetcher(*fetchers)


def _from_anywhere(
    text: str, load: Callable[[str], Fetcher], elsewhere: Mapping[str, Callable[[str], Fetcher]]
) -> Fetcher:
    scheme, slashes, _ = text.partition("://")
    if slashes:
        if scheme not in elsewhere:
            known = " and ".join(f"{scheme}://" for scheme in elsewhere) or "none"
            raise TargetNotFound(f"{text!r} names nothing: of URLs, a TARGET can be {known}")
        return elsewhere[scheme](text)
    if text in (".", "..") or ("/" in text and ":" not in text and not text.endswith(".py")):
        from serverfull.fetchers.directory import DirectoryFetcher

        return DirectoryFetcher(text)
    try:
        return load(text)
    except (TargetNotFound, TargetAttributeMissing) as wrong:
        if Path(text).is_dir():
            raise type(wrong)(f"{wrong}; the functions of the folder of that name are ./{text}") from None
        raise


class TargetPlace(NamedTuple):
    """Where the module of a TARGET is.

    :param target: the TARGET by which it is imported when ``folder`` is on ``sys.path``.
    :param folder: the folder that holds the module, or its outermost package.
    :param first: the module's file, or the folder of its outermost package.
    """

    target: str
    folder: Path
    first: Path


def place_of(text: str) -> TargetPlace:
    """Say where the module of a TARGET is that `load_target` has loaded."""
    target = _parse(text)
    if target.is_file:
        path = Path(target.place).absolute()
        if (package := _package_of(path)) is not None:
            folder, name = package
            return TargetPlace(f"{name}:{target.attribute}", folder, folder / name.partition(".")[0])
        return TargetPlace(f"{path.stem}:{target.attribute}", path.parent, path)
    outermost = sys.modules[target.place.partition(".")[0]]
    file = outermost.__file__
    first = Path(next(iter(outermost.__path__))) if hasattr(outermost, "__path__") else Path(str(file))
    return TargetPlace(f"{target.place}:{target.attribute}", first.parent.absolute(), first.absolute())


def _parse(text: str) -> _Target:
    place, colon, attribute = text.rpartition(":")
    if not colon:
        place, attribute = text, DEFAULT_ATTRIBUTE
    if not place or not all(part.isidentifier() for part in attribute.split(".")):
        raise TargetNotFound(f"{text!r} names nothing: write module:attribute or path/file.py:attribute")
    return _Target(text, place, attribute, bool(colon))


def _import(target: _Target, folder: str | None) -> ModuleType:
    if target.is_file:
        path = Path(target.place).absolute()
        if not path.is_file():
            raise TargetNotFound(f"there is no file {target.place}{_file_hint(path)}")
        if (package := _package_of(path)) is not None:
            return _import_package(target, *package)
        with _on_path(str(path.parent)):
            return _import_file(target, path)
    if not all(target.place.split(".")):
        raise TargetNotFound(f"{target.place!r} is no module name: write module:attribute or path/file.py:attribute")
    with _on_path(folder):
        importlib.invalidate_caches()
        return _users_code(target, lambda: importlib.import_module(target.place))


def _package_of(path: Path) -> tuple[Path, str] | None:
    """Say which package a file ``__init__.py`` is: the folder that holds its outermost package, and its full name."""
    if path.name != "__init__.py":
        return None
    folder = path.parent
    names = [folder.name]
    while (folder.parent / "__init__.py").is_file():
        folder = folder.parent
        names.insert(0, folder.name)
    return (folder.parent, ".".join(names)) if all(name.isidentifier() for name in names) else None


def _import_package(target: _Target, folder: Path, name: str) -> ModuleType:
    with _on_path(str(folder)):
        importlib.invalidate_caches()
        package = _users_code(target, lambda: importlib.import_module(name))
    if Path(str(package.__file__)).resolve() != folder.joinpath(*name.split("."), "__init__.py").resolve():
        raise TargetNotFound(f"{target.place} is hidden by another package {name!r}: {package.__file__}")
    return package


def _close_to(word: str, others: Sequence[str], most: int) -> Sequence[str]:
    import difflib  # late: a target that is right needs no guess

    return difflib.get_close_matches(word, others, most)


def _file_hint(path: Path) -> str:
    with_suffix = path.with_name(path.name + ".py")
    if with_suffix.is_file():
        return f"; did you mean {with_suffix.name}?"
    close = _close_to(path.name, [other.name for other in path.parent.glob("*.py")], 1)
    return f"; did you mean {close[0]}?" if close else ""


@contextmanager
def _on_path(folder: str | None) -> Iterator[None]:
    if folder is None or folder in sys.path:
        yield
        return
    sys.path.insert(0, folder)
    try:
        yield
    except BaseException:
        sys.path.remove(folder)
        raise


def _import_file(target: _Target, path: Path) -> ModuleType:
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    # A file may be called like a module that is loaded already (queue.py); it must not take that one's place.
    name = path.stem if known is None else f"_serverfull_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TargetNotFound(f"{target.place} is no Python file")
    module = importlib.util.module_from_spec(spec)
    load = spec.loader.exec_module
    sys.modules[name] = module
    try:
        _users_code(target, lambda: load(module))
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _users_code(target: _Target, run: Callable[[], _Result]) -> _Result:
    """Run what executes the user's module; whatever it raises but Ctrl-C is told as the user's own failure."""
    try:
        return run()
    except KeyboardInterrupt:
        raise
    except BaseException as failure:
        if isinstance(failure, ModuleNotFoundError) and _is_the_target_itself(target, failure):
            raise TargetNotFound(f"there is no {target.what}: {failure.msg}{_module_hint(target)}") from None
        message = f"{target.what} failed to import: {_one_line(failure)}"
        raise TargetImportFailed(message, _traceback(failure)) from failure


def _is_the_target_itself(target: _Target, failure: ModuleNotFoundError) -> bool:
    """Whether the module that is missing is the one asked for, and not one that it imports."""
    missing = failure.name or ""
    frames = traceback.extract_tb(failure.__traceback__)
    return f"{target.place}.".startswith(f"{missing}.") and not any(map(_is_users, frames))


def _module_hint(target: _Target) -> str:
    if Path(f"{target.place}.py").is_file():
        return f"; did you mean {target.place}.py:{target.attribute}?"
    close = _close_to(target.place, [path.stem for path in Path.cwd().glob("*.py")], 1)
    return f"; did you mean {close[0]}?" if close else " (looked in the current folder and on sys.path)"


def _one_line(failure: BaseException) -> str:
    try:
        text = str(failure).partition("\n")[0]
    except Exception:
        text = ""  # a broken __str__ must not hide that the import failed
    return f"{type(failure).__name__}: {text}" if text else type(failure).__name__


def _traceback(failure: BaseException) -> str:
    told = traceback.TracebackException.from_exception(failure)
    _keep_users_frames(told)
    return "".join(told.format())


def _keep_users_frames(told: traceback.TracebackException) -> None:
    told.stack = traceback.StackSummary.from_list([frame for frame in told.stack if _is_users(frame)])
    for linked in (told.__cause__, told.__context__, *(told.exceptions or ())):
        if linked is not None:
            _keep_users_frames(linked)


def _is_users(frame: traceback.FrameSummary) -> bool:
    return of_users(frame.filename)


def of_users(filename: str) -> bool:
    """Say whether a frame of that file is the user's, and not of what imports it."""
    return not filename.startswith(("<frozen importlib", str(importlib.__file__), f"{_PACKAGE}/"))


def _attribute(target: _Target, module: ModuleType) -> object:
    try:
        return reduce(getattr, target.attribute.split("."), module)
    except AttributeError:
        raise TargetAttributeMissing(_missing(target, module)) from None
    except Exception as failure:  # a module's own __getattr__ is the user's code
        message = f"{target.what} failed to give {target.attribute!r}: {_one_line(failure)}"
        raise TargetImportFailed(message, _traceback(failure)) from None


def _missing(target: _Target, module: ModuleType) -> str:
    text = f"{target.what} has no attribute {target.attribute!r}"
    names = [name for name, value in vars(module).items() if not name.startswith("_") and _own(module, value)]
    close = _close_to(target.attribute, names, 3)
    if close:
        return f"{text}; did you mean {' or '.join(repr(name) for name in close)}?"
    if target.explicit or not names:
        return f"{text}; it has {', '.join(names[:8])}" if names else f"{text}, nor anything else to serve"
    return f"{text}; name what to serve, such as {target.place}:{names[0]}"


def _own(module: ModuleType, value: object) -> bool:
    """Whether a value looks servable and is not merely imported into the module."""
    if isinstance(value, (Fetcher, Function, Mapping)):
        return True
    return callable(value) and getattr(value, "__module__", None) == module.__name__


def _fetcher(target: _Target, value: object) -> Fetcher:
    if isinstance(value, ModuleType) and hasattr(value, DEFAULT_ATTRIBUTE):
        value = getattr(value, DEFAULT_ATTRIBUTE)
    if isinstance(value, Fetcher):
        return value
    try:
        functions = _functions(target, value)
        if not functions:
            raise ValueError("it holds no function")
        return StaticFetcher(functions)
    except (TypeError, ValueError) as wrong:
        raise TargetInvalid(f"{target.text} cannot be served: {wrong}") from None


def _functions(target: _Target, value: object) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    if isinstance(value, (list, tuple)):
        return _by_name(value)
    if isinstance(value, type):
        hint = "make a Fetcher of it" if issubclass(value, Fetcher) else "name an instance or a function"
        raise TypeError(f"it is the class {value.__name__}; {hint}")
    if not callable(value):
        raise TypeError(
            f"it is a {type(value).__name__}; it takes a mapping of names to handlers, a list of handlers, a Fetcher, "
            "a handler, a Function or a module with 'functions'"
        )
    return {_name_of(value) or target.attribute.rpartition(".")[2]: value}


def _by_name(values: list[Any] | tuple[Any, ...]) -> Mapping[str, Any]:
    functions: dict[str, Any] = {}
    for value in values:
        name = _name_of(value) if callable(value) else None
        if name is None:
            raise TypeError(f"{value!r} in the list has no __name__ to be served under; use a mapping")
        if name in functions:
            raise ValueError(f"the list holds two functions named {name!r}; use a mapping")
        functions[name] = value
    return functions


def _name_of(value: object) -> str | None:
    """The ``__name__`` to serve a handler under; None for lambdas, partials and callable instances."""
    handler = value.handler if isinstance(value, Function) else value
    name = getattr(handler, "__name__", None)
    return name if isinstance(name, str) and name != "<lambda>" else None
