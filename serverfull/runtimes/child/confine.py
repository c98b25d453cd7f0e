"""Puts limits on the process that calls it: the forked child, before any code of a function runs in it.

The host prepares what needs preparing (`serverfull.runtimes.process.confinement`) and sends orders, plain JSON; this
module carries them out. It runs in a single-threaded process. A step that fails raises, and the process must not go on:
a function without the limits that it was promised is worse than one that did not start.

Run as a script, it tries what this machine lets a process do, and prints it as JSON.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import resource
import signal
import stat
import sys

TYPE_CHECKING = False  # the module typing is not needed to run
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

NEW_MOUNTS = 0x00020000
NEW_USERS = 0x10000000

READ_ONLY = 0x1
NO_SETUID = 0x2
NO_DEVICES = 0x4
NO_EXECUTION = 0x8
_REMOUNT = 0x20
BIND = 0x1000
RECURSIVE = 0x4000
_SLAVE = 0x80000

# What statvfs says of a mount, in the words of mount: a user namespace may not take these away from a bind mount.
_KEPT_FLAGS = {1: 0x1, 2: 0x2, 4: 0x4, 8: 0x8, 1024: 0x400, 2048: 0x800, 4096: 0x200000}

_TMP = "/tmp"  # noqa: S108 - that is the place
_OPT = "/opt"
_HOSTS = "/etc/hosts"

_SET_DEATH_SIGNAL = 1
SET_DUMPABLE = 4
SET_NO_NEW_PRIVILEGES = 38
_CAPABILITIES_VERSION = 0x20080522

libc = ctypes.CDLL(None, use_errno=True)


def apply(
    orders: Mapping[str, Any],
    keep: Iterable[int] = (0, 1, 2),
    parent: int | None = None,
    *,
    interpreter: bool = True,
    visible: Iterable[str] = (),
) -> None:
    """Carry out the orders, in the process that they are for.

    :param orders: what `Confinement.orders` holds; empty orders still give the process a session of its own.
    :param keep: the descriptors that stay open; all others are closed.
    :param parent: the process whose death ends this one, and which must be its parent still; None: no such tie.
    :param interpreter: whether this interpreter goes on, and is not replaced by another program: it keeps what every
        Python has, a SIGPIPE that is ignored and a SIGINT that raises.
    :param visible: paths that must stay what they are although ``/tmp`` or ``/opt`` is covered, beside those of the
        orders and those of this interpreter.
    :raises OSError: a step could not be done; the message names it.
    """
    if os.getpid() != os.getsid(0):
        os.setsid()
    enter(orders.get("groups", ()))
    if "oom_score" in orders:
        with contextlib.suppress(OSError):  # a wish: who is killed first where the whole machine runs out of memory
            write("/proc/self/oom_score_adj", str(orders["oom_score"]))
    _yield_to_the_host()
    if orders.get("namespace"):
        _own_mounts(orders["namespace"], visible)
    elif orders.get("join"):
        _join(orders["join"]["pid"], user=orders["join"]["user"])
    for name, value in orders.get("limits", {}).items():
        _limit(getattr(resource, "RLIMIT_" + name), value)
    os.umask(0o022)
    _default_signals(interpreter)
    close_others(keep)
    if parent is not None:
        die_with(parent)


def apply_again(orders: Mapping[str, Any], parent: int, copy: Callable[[int, int], None]) -> None:
    """Carry out the orders in a process that has been forked from one of the same function, which is held already.

    What that has left in ``/tmp`` is copied. Its limits, signals and descriptors stay as they are.

    :param orders: as for `apply`; only groups and namespace count.
    :param parent: as for `apply`.
    :param copy: copies a folder into another; both are descriptors.
    :raises OSError: a step could not be done; the message names it.
    """
    os.setsid()
    enter(orders.get("groups", ()))
    if orders.get("namespace"):
        _own_mounts(orders["namespace"], (), copy)
    die_with(parent)


def enter(groups: Iterable[str]) -> None:
    """Move this process into control groups.

    The kernel may take 20 ms for that, in which no other group on the machine can be made.

    :param groups: the files that a process writes ``0`` into.
    """
    for group in groups:
        write(group, "0")


def die_with(parent: int) -> None:
    """End this process at once when its parent ends; also when that has happened already.

    A change of user takes this back, so it comes last.
    """
    if hasattr(libc, "prctl"):
        control(_SET_DEATH_SIGNAL, signal.SIGKILL, "the death signal")
    if os.getppid() != parent:
        os._exit(1)


def close_others(keep: Iterable[int]) -> None:
    """Close every descriptor but these."""
    kept = set(keep)
    try:
        opened = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        opened = list(range(min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 65536)))
    for number in opened:
        if number not in kept:
            with contextlib.suppress(OSError):
                os.close(number)


def _limit(which: int, value: int) -> None:
    _, most = resource.getrlimit(which)
    if most != resource.RLIM_INFINITY:
        value = min(value, most)
    resource.setrlimit(which, (value, value))


def _default_signals(interpreter: bool) -> None:
    ignored = {signal.SIGPIPE, signal.SIGXFSZ} if interpreter else set()
    for number in signal.valid_signals():
        wanted = signal.SIG_IGN if number in ignored else signal.SIG_DFL
        if signal.getsignal(number) not in (wanted, None):  # None: the C library's own
            signal.signal(number, wanted)
    if interpreter:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _own_mounts(
    orders: Mapping[str, Any], visible: Iterable[str], copy: Callable[[int, int], None] | None = None
) -> None:
    """Cover /tmp and /opt, for this process and its children alone.

    What is mounted here is gone with the last of them; nothing has to be unmounted, even after a kill.

    :param copy: copies what the old ``/tmp`` has into the new one; None: that is empty.
    """
    user, group = os.geteuid(), os.getegid()
    check(libc.unshare(NEW_MOUNTS | (NEW_USERS if orders["user"] else 0)), "a mount namespace of its own")
    if orders["user"]:
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"{user} {user} 1")
        write("/proc/self/gid_map", f"{group} {group} 1")
    mount(None, "/", None, RECURSIVE | _SLAVE, None)
    paths = [*orders.get("visible", ()), *visible]
    tmp_mb, opt = orders.get("tmp_mb"), orders.get("opt")
    # All is taken in hand before anything is covered: one may lie below the other's place.
    under_tmp = _Kept(_TMP, paths) if tmp_mb is not None else None
    under_opt = _Kept(_OPT, paths) if opt is not None else None
    layers = os.open(opt, os.O_PATH) if opt is not None else -1
    if under_opt is not None:
        _cover_opt(layers, under_opt)
        os.close(layers)
    if under_tmp is not None:
        before = os.open(_TMP, os.O_RDONLY | os.O_DIRECTORY)
        if orders.get("hosts"):
            _cover_hosts(orders["hosts"])
        mount("tmpfs", _TMP, "tmpfs", NO_SETUID | NO_DEVICES, f"size={tmp_mb}m,mode=1777")
        if copy is not None:
            now = os.open(_TMP, os.O_RDONLY | os.O_DIRECTORY)
            copy(before, now)
            os.close(now)
        os.close(before)
        under_tmp.put_back()
    if orders["user"]:
        drop_capabilities()


def _join(pid: int, *, user: bool) -> None:
    """See what another process sees, which is in namespaces of its own.

    :param user: one of them is a user namespace.
    """
    kinds = ("user", "mnt") if user else ("mnt",)
    spaces = {kind: os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in kinds}
    for kind, space in spaces.items():
        check(libc.setns(space, 0), f"the {kind} namespace of process {pid}")
        os.close(space)
    if user:
        drop_capabilities()


def _cover_opt(layers: int, kept: _Kept) -> None:
    source = f"/proc/self/fd/{layers}"
    flags = READ_ONLY | NO_SETUID | NO_DEVICES
    if not kept:
        _bind(source, _OPT, flags)
        return
    # Something that the process needs lies in the /opt of this machine: both have to be there.
    mount("tmpfs", _OPT, "tmpfs", NO_SETUID | NO_DEVICES, "size=1m,mode=755")
    for name in os.listdir(source):
        path = os.path.join(source, name)
        if os.path.islink(path):
            os.symlink(os.readlink(path), os.path.join(_OPT, name))
            continue
        make_place(os.stat(path), os.path.join(_OPT, name))
        _bind(path, os.path.join(_OPT, name), flags)
    kept.put_back()
    mount(None, _OPT, None, _REMOUNT | BIND | flags, None)


def _cover_hosts(line: str) -> None:
    """Have /etc/hosts end with a line of its own, in a file system that the new /tmp is about to cover.

    :param line: an address and its names; others for the same names, which a snapshot has, are left out.
    """
    own, names = line.encode(), line.encode().partition(b" ")[2]
    with open(_HOSTS, "rb") as file:
        lines = [known for known in file.read().splitlines() if not known.endswith(names)]
    text = b"\n".join([*lines, own, b""])
    mount("tmpfs", _TMP, "tmpfs", NO_SETUID | NO_DEVICES, f"size={len(text) + 65536},mode=755")
    path = f"{_TMP}/hosts"
    with open(path, "wb") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(text)
    _bind(path, _HOSTS, READ_ONLY | NO_SETUID | NO_DEVICES)


class _Kept:
    """Paths below a folder that is about to be covered; they are put back into what covers it."""

    def __init__(self, folder: str, paths: Iterable[str]) -> None:
        named = {way for path in paths if path for way in ways_to(path)} | ways_of_this_interpreter()
        below = sorted(path for path in named if path.startswith(folder + os.sep) and os.path.exists(path))
        outermost = [path for path in below if not any(path.startswith(other + os.sep) for other in below)]
        self._held = {path: os.open(path, os.O_PATH) for path in outermost}

    def __bool__(self) -> bool:
        return bool(self._held)

    def put_back(self) -> None:
        for path, held in self._held.items():
            make_place(os.fstat(held), path)
            mount(f"/proc/self/fd/{held}", path, None, BIND | RECURSIVE, None)
            os.close(held)


def make_place(of: os.stat_result, path: str) -> None:
    """Make something for a mount to lie upon.

    :param of: what is to be mounted.
    """
    if stat.S_ISDIR(of.st_mode):
        os.makedirs(path, exist_ok=True)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))


@functools.lru_cache(None)
def ways_of_this_interpreter() -> frozenset[str]:
    """Give the paths of what Python reads as it goes on: its library, and the folders that modules come from.

    They are looked up once: the zygote does so before it forks, because that takes a child as long as all its limits.
    """
    here = os.path.dirname(os.path.abspath(__file__))
    paths = [sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.dirname(sys.executable or ""), here, *sys.path]
    return frozenset(way for path in paths if path for way in ways_to(path))


def ways_to(path: str) -> tuple[str, str]:
    """Give a path as it is written, and without symbolic links."""
    return os.path.abspath(path), os.path.realpath(path)


def _bind(source: str, target: str, flags: int) -> None:
    mount(source, target, None, BIND | RECURSIVE, None)
    was = os.statvfs(target).f_flag
    for there, flag in _KEPT_FLAGS.items():
        if was & there:
            flags |= flag
    mount(None, target, None, _REMOUNT | BIND | flags, None)


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None) -> None:
    """Call mount(2).

    :raises OSError: it cannot be done; the message names the target.
    """
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    done = libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    check(done, f"a mount on {target}")


def drop_capabilities() -> None:
    """Give up every capability, also those of a user namespace: making mounts was all that it was for."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    check(libc.capset(ctypes.byref(header), ctypes.byref(nothing)), "capabilities")


def check(done: int, what: str) -> None:
    """Raise what a call of the C library says by a result other than 0.

    :param what: was asked for.
    :raises OSError: that cannot be done.
    """
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def control(option: int, value: int, what: str) -> None:
    """Call prctl(2).

    :param what: is asked for.
    :raises OSError: that cannot be done.
    """
    check(libc.prctl(option, value, 0, 0, 0), what)


def _yield_to_the_host() -> None:
    """Let the kernel not interrupt the host for this process each time that there is work for it.

    It runs as soon as a core is free, and as long as any other. Where many share a core, a call then takes a fifth less
    of it, because the host gives work to all of them in one go.
    """
    with contextlib.suppress(AttributeError, OSError):  # a wish: another system, or a container that forbids it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def write(path: str, text: str) -> None:
    """Write into a file of the kernel's.

    :raises OSError: it does not take that; the message names it.
    """
    try:
        with open(path, "wb", buffering=0) as file:
            file.write(text.encode())
    except OSError as error:
        raise OSError(error.errno, f"{path}: {error.strerror}") from None


def _attempt(step: Callable[[], None]) -> str:
    """Say how a step ends in a process of its own: an empty text, or why it cannot be done."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            step()
        except BaseException as error:
            os.write(writing, str(error).encode() or b"failed")
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        why = said.read().decode()
    _, status = os.waitpid(child, 0)
    return why or ("" if status == 0 else f"ended with status {status}")


def _process_limit_binds() -> None:
    """Raise where RLIMIT_NPROC means nothing, as for root."""
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    try:
        child = os.fork()
    except BlockingIOError:
        return
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    raise OSError(f"the limit on processes does not bind user {os.geteuid()}")


def attempts() -> dict[str, str]:
    """Try what this machine lets a process do; gives for each step why not, or an empty text."""
    results = {"limit": _attempt(_process_limit_binds)}
    for user in (False, True):
        for name, order in (("tmp", {"tmp_mb": 1}), ("opt", {"opt": "/"})):
            mounting = functools.partial(_own_mounts, {"user": user, **order}, ())
            results[f"{name} as user" if user else name] = _attempt(mounting)
        if not (results["tmp"] and results["opt"]):
            break
    return results


if __name__ == "__main__":
    sys.stdout.write(json.dumps(attempts()))
