"""Where Python code of a function is imported from: before Python's own, what belongs to the function.

Beside the folders of its package and its layers that can be a virtual environment, with what its ``.pth`` files name,
editable installs among that. Of a folder that is edited while functions run from it, bytecode is neither read nor
written: it is told from its source by second and size alone, and an edit may change neither.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)

TYPE_CHECKING = False  # the module typing is not needed to run
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import CodeType

_SITE = os.sep + "site-packages"


class FreshLoader(SourceFileLoader):
    """Loads a module from its source, whatever bytecode there is."""

    def get_code(self, fullname: str) -> CodeType:
        """Compile the source as it is now."""
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


def use(path: Iterable[str], virtualenvs: Iterable[str] = (), live: str = "") -> None:
    """Have this process import from folders first.

    :param path: folders; the first one is that of the package.
    :param virtualenvs: folders of virtual environments, which count right behind it; what is not there is left out.
    :param live: a folder whose files change while functions run from it; empty: none does.
    """
    first = list(path)
    if live:
        sys.path_hooks.insert(0, _fresh(live))
        sys.path_importer_cache.clear()
    sys.path[:0] = first
    for virtualenv in virtualenvs:
        folder = site_packages(virtualenv)
        if folder:
            _add(folder, behind=first[:1])


def site_packages(virtualenv: str) -> str:
    """Give the folder of what is installed in a virtual environment; empty: there is none.

    One that another Python made counts too where there is none of this one's: most of it runs with any.
    """
    import glob  # late: few functions need it

    own = "python{}.{}".format(*sys.version_info[:2])
    found = sorted(glob.glob(f"{glob.escape(virtualenv)}/lib/python*/site-packages"))
    return next((path for path in found if path.split(os.sep)[-2] == own), found[-1] if found else "")


def _add(folder: str, behind: list[str]) -> None:
    """Add a folder with all that its ``.pth`` files name, which Python itself would put last."""
    import site

    before = len(sys.path)
    site.addsitedir(folder)
    added = sys.path[before:]
    del sys.path[before:]
    sys.path[len(behind) : len(behind)] = added


def _fresh(live: str) -> Callable[[str], FileFinder]:
    """Make a path hook for what is below a folder, but for what is installed there: nobody edits that."""
    loaders = (
        (ExtensionFileLoader, EXTENSION_SUFFIXES),
        (FreshLoader, SOURCE_SUFFIXES),
        (SourcelessFileLoader, BYTECODE_SUFFIXES),
    )

    def hook(path: str) -> FileFinder:
        absolute = os.path.abspath(path)
        if not (absolute + os.sep).startswith(live + os.sep) or _SITE in absolute[len(live) :]:
            raise ImportError("another finder is for this", path=path)
        if not os.path.isdir(absolute):
            raise ImportError("only folders are supported", path=path)
        return FileFinder(path, *loaders)

    return hook
