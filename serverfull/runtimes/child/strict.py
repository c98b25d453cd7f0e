"""The sandbox level ``strict``: what a process gives up for good before the code of a function runs in it.

It has been forked by `apart.fork`, into namespaces of its own, and `confine.apply` has limited it. What is left to do:
files of its own, a user that nobody else is, no capability, Landlock where the kernel has it, and the filter of system
calls. The order is that of what each needs. Nothing of it can be taken back, by nobody.

Run in an interpreter of its own (``__main__.py strict``), it tries all that, and prints as JSON what came of it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import sys

from . import apart, confine, landlock, private_root, seccomp

TYPE_CHECKING = False  # the module typing is not needed to run
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

RUNTIME_API_PORT = 9001
"""Where clients of host and port find the Runtime API in a network of their own, as on AWS."""

_FIRST_USER = 2_000_000_000
"""The user of the process with the id 0: far above those that systems, containers and directories give away."""

_OWN_GROUP_ROOT = 0x02000000

_DROP_FROM_BOUND = 24


def enclose(orders: Mapping[str, Any], mounts: int = -1) -> None:
    """Do all of it.

    Where the host is root, the process has a user and a group of its own from then on. Else it keeps the host's, in a
    namespace of users where that means nothing.

    :param orders: as `private_root.enter` takes them; where ``join`` is among them, the id of a process of the sandbox
        that has begun already, this one gets its user and what it sees.
    :param mounts: the descriptor of those, as `apart.join` gives it.
    :raises OSError: a step could not be done; the message names it, and the process must not go on.
    """
    # Extensions of the same sandbox may be there already, with the user that this process is about to have.
    confine.control(confine.SET_DUMPABLE, 0, "not to be looked at")
    user, group = _own_user(orders.get("join"))
    confine.check(confine.libc.unshare(_OWN_GROUP_ROOT), "a namespace of control groups")
    if "join" in orders:
        apart.enter_mounts(mounts)
    else:
        private_root.enter(orders, user, group)
    _give_up_rights(user, group)
    everything = dict.fromkeys((private_root.TMP, *orders["shared"]), landlock.everything())
    landlock.restrict({"/": landlock.READ, "/dev": landlock.USE_DEVICES, **everything})
    if not seccomp.HERE:
        raise OSError(errno.ENOSYS, f"there is no filter of system calls for {os.uname().machine}")
    seccomp.install(seccomp.HERE)
    confine.control(confine.SET_DUMPABLE, 1, "files of its own in /proc")  # until here it could not see them either


def listen(channel: int) -> None:
    """Listen where clients look for the Runtime API, and give the listening socket to the host.

    :param channel: the descriptor of a socket whose other end the host has; stays open, so that no other gets its
        number before all that came with the order are closed.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", RUNTIME_API_PORT))
        listener.listen(128)
        with socket.socket(fileno=os.dup(channel)) as line:
            apart.give(line, listener)


def _own_user(joined: int | None) -> tuple[int, int]:
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    user = _FIRST_USER + (joined or int(os.readlink("/proc/self")))  # the machine's /proc: no two there share it
    return user, user


def _give_up_rights(user: int, group: int) -> None:
    with contextlib.suppress(OSError):  # after the last one; nobody can gain any of them by what follows either
        for capability in range(64):
            confine.control(_DROP_FROM_BOUND, capability, "a capability")
    if os.geteuid() == 0:
        for stream in (1, 2):  # so that the function may open them anew by /dev/stdout
            os.fchown(stream, user, group)
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
    confine.drop_capabilities()
    confine.control(confine.SET_NO_NEW_PRIVILEGES, 1, "no new privileges")


def attempt() -> None:
    """Try it in a process, and print what came of it: ``why`` it cannot be done, or an empty text, and ``landlock``."""
    alive, kept = os.pipe()
    told, telling = os.pipe()
    try:
        pid, init = apart.fork(alive)
    except OSError as error:
        _print(str(error))
        return
    if pid == 0:
        why = ""
        try:
            os.dup2(telling, 1)
            os.dup2(telling, 2)
            confine.apply({}, keep=(0, 1, 2))
            enclose({"tmp_mb": 1, "opt": None, "visible": [], "hidden": [], "shared": []})
        except BaseException as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        os.write(1, why.encode("utf-8", "replace")[:2000])
        os._exit(0)
    os.close(telling)
    with os.fdopen(told, "rb") as said:
        why = said.read().decode("utf-8", "replace")
    # Its parent has ended, and nobody here adopts: that it is gone is seen by the pipe.
    with contextlib.suppress(ProcessLookupError):
        os.kill(init, signal.SIGKILL)
    os.close(kept)
    _print(why)


def _print(why: str) -> None:
    sys.stdout.write(json.dumps({"why": why, "landlock": landlock.version()}))
