"""Starts a zygote (``zygote DESCRIPTOR HOST``), or the runtime client in an interpreter of its own: with a connection
that is open already (``client JSON``), or as the first program of a container (``container JSON``).

With ``strict`` it tries whether this machine can hold a process at that level.

The host starts this file by its path. The modules beside it become a package with a name of its own, so that a package
called ``serverfull`` in the code of a function is never mixed up with ours, and nothing of ours is on ``sys.path``.
"""

from __future__ import annotations

import sys

_PACKAGE = "_serverfull_child"


def _main() -> None:
    folder = __file__.rpartition("/")[0]
    if not sys.flags.isolated and sys.path and sys.path[0] == folder:
        del sys.path[0]
    package = type(sys)(_PACKAGE)
    package.__path__ = [folder]
    sys.modules[_PACKAGE] = package
    role, *arguments = sys.argv[1:]
    sys.argv[:] = ["bootstrap"]
    if role == "zygote":
        from _serverfull_child import zygote  # type: ignore[import-not-found]

        zygote.main(int(arguments[0]), int(arguments[1]))
    elif role == "container":
        from _serverfull_child import container

        container.begin(arguments[0])
    elif role == "strict":
        from _serverfull_child import strict

        strict.attempt()
    else:
        from _serverfull_child import client

        client.resume(arguments[0])


if __name__ == "__main__":  # `multiprocessing` imports this file again, under another name
    _main()
