"""What a shell of the image does in a container before the function's program: leads output, holds back, tells why not.

The scripts are for any shell: that of Debian, bash, and the one of busybox.
"""

from __future__ import annotations

from serverfull.runtimes.docker.options import HOST

_NOT_EXECUTABLE = {126: "permission denied", 127: "no such file or directory"}
"""The statuses by which a shell, and the engine, say that they could not execute a program."""

_BEYOND = 60
"""Added to them, as programs end with these too: what comes of it is no signal's, and no program's that is known."""

# What `exec` does not replace goes on: with the trap in most shells, with the next command in bash, which has no trap
# then, and would end at once but for the option.
_SAYING = (
    f"shopt -s execfail 2> /dev/null; beyond() {{ s=$?; case $s in 126|127) s=$((s + {_BEYOND}));; esac; exit $s; }}; "
    "trap beyond EXIT"
)

_EXECUTE = 'exec "$0" "$@"'

TELLING = ("/bin/sh", "-c", f"{_SAYING}; {_EXECUTE}; beyond")
"""Replaces itself by the command behind it, or tells why not."""

LEADING = ("/bin/sh", "-c", f"{_SAYING}; {_EXECUTE} > {HOST}/log 2>&1; beyond")
"""The same, and the output of the command goes to the host."""

HOLDING = (
    "/bin/sh",
    "-c",
    f"""
read -r word < {HOST}/go
"$0" "$@" &
runtime=$!
trap 'kill -TERM $runtime' TERM
trap 'kill -KILL $runtime' USR1
wait $runtime
status=$?
while kill -0 $runtime 2> /dev/null; do wait $runtime; status=$?; done
echo $status > {HOST}/ended
read -r word < {HOST}/go
""",
)
"""Runs the command behind it, which is one of the above, as the runtime of a container with extensions: waits for a
word before, tells the status by a named pipe, and stays, so that extensions can be told of the end, until the container
is killed. Signals for the runtime go by it, and each of them ends a ``wait``."""


def said_by_engine(status: int) -> str | None:
    """Say why a process that the engine was to start in a container could not be; None: it could, for all one knows.

    :param status: that the process ended with.
    """
    return _NOT_EXECUTABLE.get(status)


def said_by_shell(status: int) -> str | None:
    """Say why a program behind `LEADING` or `TELLING` could not be executed; None: it could.

    :param status: that the shell ended with.
    """
    return _NOT_EXECUTABLE.get(status - _BEYOND)
