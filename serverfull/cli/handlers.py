"""Finds the handler in a deployment package of Python code, without running any of it."""

from __future__ import annotations

import ast
import zipfile
from collections.abc import Iterator
from io import BytesIO

from serverfull.cli.packaging import PackageRefused

DEFAULT = "lambda_function.handler"
"""What AWS's own examples and documentation call it, but for the attribute."""

_NAMES = ("handler", "lambda_handler")
_MODULES = (".py", "/__init__.py", ".so", ".pyc")


def find_handler(package: bytes) -> str:
    """Give the one handler that is obvious.

    That is `DEFAULT`, else the only ``handler`` or ``lambda_handler`` of the modules at the root of the package, else
    the only public function of these.

    :raises PackageRefused: there is none, or there are several.
    """
    modules = dict(_modules(package))
    found = [f"{module}.{name}" for module, names in modules.items() for name in names if name in _NAMES]
    for preferred in (DEFAULT, "lambda_function.lambda_handler"):
        if preferred in found:
            return preferred
    if not found:
        found = [f"{module}.{name}" for module, names in modules.items() for name, is_def in names.items() if is_def]
    if len(found) == 1:
        return found[0]
    there_are = f"there are {', '.join(sorted(found)[:10])}" if found else "no module at the root has a function"
    raise PackageRefused(f"name the function that handles events with --handler MODULE.FUNCTION: {there_are}")


def has_module_of(package: bytes, handler: str) -> bool:
    """Tell whether the module that a handler is in is in a package."""
    module = handler.rpartition(".")[0].replace(".", "/")
    names = set(_names(package))
    return any(module + suffix in names for suffix in _MODULES)


def _names(package: bytes) -> list[str]:
    with _opened(package) as archive:
        return archive.namelist()


def _modules(package: bytes) -> Iterator[tuple[str, dict[str, bool]]]:
    with _opened(package) as archive:
        for entry in archive.infolist():
            module, dot, suffix = entry.filename.rpartition(".")
            if dot and suffix == "py" and module.isidentifier():
                yield module, _defined(archive.read(entry), entry.filename)


def _opened(package: bytes) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(BytesIO(package))
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as broken:
        raise PackageRefused(f"the package is no zip archive: {broken}") from None


def _defined(source: bytes, file: str) -> dict[str, bool]:
    """Give the public names that a module's own lines define, and whether each is a function."""
    try:
        tree = ast.parse(source, file)
    except (SyntaxError, ValueError) as wrong:
        raise PackageRefused(f"{file} is not Python: {wrong}") from None
    except (RecursionError, MemoryError):  # so ends CPython's parser where something is nested without end
        raise PackageRefused(f"{file} is not Python: it is nested too deeply") from None
    names: dict[str, bool] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names[node.name] = True
        elif isinstance(node, ast.Assign):
            names |= {target.id: False for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = False
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name: False for alias in node.names}
    return {name: is_def for name, is_def in names.items() if not name.startswith("_")}
