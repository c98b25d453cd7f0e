"""The command line. `main` is all that others call; each command is a module of its own, imported when it is used.

Exit codes: 0 all went well, 1 an error, 2 wrong usage (flags, settings, target), 3 the host cannot start, 4 the invoked
function failed, 130 Ctrl-C. Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serverfull.signals import AtOnce


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and give its exit code.

    :param arguments: without the program's name; None takes those of the process.
    """
    ending = None
    if arguments is None and sys.argv[1:2] in (["serve"], ["dev"]):
        from serverfull.runtimes.garbage import hardly_looked_for
        from serverfull.signals import AtOnce

        ending = AtOnce()
        hardly_looked_for()
    _open_closed_streams()
    try:
        code = _run(arguments, ending)
    except KeyboardInterrupt:
        code = 130
    if ending is not None:
        from serverfull.signals import leave_stuck_threads_behind

        ending.status = code
        leave_stuck_threads_behind(code)
    return code


def _run(arguments: Sequence[str] | None, ending: AtOnce | None) -> int:
    import click

    from serverfull.cli.application import application
    from serverfull.errors import ServerfullError

    try:
        code = application.main(arguments, prog_name="serverfull", standalone_mode=False, obj=ending)
        return code if isinstance(code, int) else 0
    except SystemExit as end:  # so ends click when it has answered a shell that completes, and when a pipe is broken
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except click.ClickException as wrong:
        wrong.show()
        return wrong.exit_code
    except click.Abort:
        return 130
    except ServerfullError as error:
        return _report(error)
    except OSError as wrong:
        if wrong.errno not in _NO_ROOM or wrong.filename is not None:
            raise
        _give_up_output()
        return _report(ServerfullError(f"the output cannot be written: {wrong.strerror}"))


def _open_closed_streams() -> None:
    """Put the null device where the caller closed a standard stream: the next socket would get its number."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                os.fstat(descriptor)
                continue  # somebody has it already
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))


def _give_up_output() -> None:
    """Put the null device in the place of the standard output, which else is tried again when the interpreter ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _report(error: Exception) -> int:
    from serverfull.errors import ConfigurationError

    sys.stderr.write(getattr(error, "user_traceback", ""))
    for line in str(error).splitlines():
        sys.stderr.write(f"Error: {line}\n")
    return 2 if isinstance(error, ConfigurationError) else getattr(error, "exit_code", 1)
