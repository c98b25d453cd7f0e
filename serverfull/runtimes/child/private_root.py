"""A file system of a process's own: what it needs of the machine, read-only, its ``/tmp``, and nothing else.

Everything is mounted in the namespaces that `apart.fork` has made, so it is gone with the last process in them. The
machine's own root is let go at the end: there is no way back to it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

from . import confine
from .confine import BIND, NO_DEVICES, NO_EXECUTION, NO_SETUID, READ_ONLY, RECURSIVE

TYPE_CHECKING = False  # the module typing is not needed to run
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

TMP = "/tmp"  # noqa: S108 - that is the place
OPT = "/opt"

_PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
"""What programs are made of: folders, or links into one."""

_SETTINGS = (
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "debian_version",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "os-release",
    "pki",
    "protocols",
    "services",
    "ssl",
    "timezone",
)
"""What of /etc programs need, and says nothing of the machine's users."""

_SANDBOX_NAMES = "sandbox.localdomain sandbox.local sandbox"
"""What AWS calls the loopback of an environment: extensions listen there."""

_DEVICES = ("full", "null", "random", "urandom", "zero")
_LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}

_COVERED = (
    *("cmdline", "config.gz", "diskstats", "interrupts", "iomem", "ioports", "kallsyms", "kcore", "key-users", "keys"),
    *("kmsg", "kpagecount", "kpageflags", "locks", "modules", "mtrr", "pagetypeinfo", "partitions", "sched_debug"),
    *("slabinfo", "swaps", "sysrq-trigger", "timer_list", "vmallocinfo", "zoneinfo"),
)
"""Files of /proc that are the machine's, and neither a process's own nor of use to programs."""

_EMPTIED = ("acpi", "asound", "bus", "driver", "fs", "irq", "scsi")
"""Folders there that are too."""

_USABLE = NO_SETUID | NO_DEVICES
_PRIVATE = 0x40000
_DETACH = 2

_SET_ATTRIBUTES = 442  # the same on all architectures
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_HERE, _THEM_ALL = -100, 0x8000

_SITE = ("site-packages", "dist-packages")


def enter(orders: Mapping[str, Any], user: int, group: int) -> None:
    """Make it, and make it the root.

    :param orders: ``tmp_mb``; ``opt``, the folder of the layers or None; ``visible``, the paths that are there
        beside those of this interpreter; ``hidden``, folders that are empty wherever something else would show them;
        ``shared``, folders that can be written to; ``exact``, those of the visible ones that somebody else may have put
        something in the place of.
    :param user: who ``/etc/passwd`` says that the process is.
    :raises OSError: the machine does not allow that, or lacks something.
    """
    confine.mount(None, "/", None, RECURSIVE | _PRIVATE, None)
    shown = [*_PROGRAMS, *(f"/etc/{name}" for name in _SETTINGS), *_ways_of_python()]
    shown += [way for path in (*orders["visible"], *orders["shared"]) for way in confine.ways_to(path)]
    plan = _plan(shown, [way for path in orders["hidden"] for way in confine.ways_to(path)])
    held = {path: _hold(path) for path in plan if plan[path] and not os.path.islink(path)}
    for path in orders.get("exact", ()):
        # What is mounted is what is held, so nothing can come in between.
        if path in plan and os.readlink(f"/proc/self/fd/{held[path]}" if path in held else path) != path:
            raise OSError(errno.ELOOP, "is not the folder that may be shown any more", path)
    links = {path: os.readlink(path) for path in plan if plan[path] and os.path.islink(path)}
    devices = {name: _hold(f"/dev/{name}") for name in _DEVICES}
    layers = _hold(orders["opt"]) if orders["opt"] else None
    # From here on the machine's /tmp is not to be seen: what is needed of it is held.
    confine.mount("tmpfs", TMP, "tmpfs", NO_SETUID, "size=4m,mode=755")
    base = TMP
    _make_tmp(base, orders["tmp_mb"])
    _make_devices(base, devices)
    _make_proc(base, devices["null"])
    os.mkdir(base + "/etc", 0o755)
    if layers is not None:
        _show_layers(base, layers, [path for path in plan if path.startswith(OPT + os.sep)])
    for path, is_shown in plan.items():
        if path in links:
            os.makedirs(os.path.dirname(base + path), exist_ok=True)
            os.symlink(links[path], base + path)
        elif is_shown:
            _show(held[path], base + path, _USABLE if path in orders["shared"] else _USABLE | READ_ONLY)
        else:
            confine.mount("tmpfs", base + path, "tmpfs", NO_SETUID | NO_DEVICES, "size=1m,mode=755")
    _write_settings(base + "/etc", user, group)
    for path in [path for path, is_shown in plan.items() if not is_shown] + ["/proc", "/"]:
        set_attributes(base + path, READ_ONLY, recursively=False)
    for descriptor in (*held.values(), *devices.values(), *(() if layers is None else (layers,))):
        os.close(descriptor)
    _turn_to(base)


def set_attributes(path: str, attributes: int, *, recursively: bool = True) -> None:
    """Restrict a mount, and those below it.

    :raises OSError: it cannot be done, or the kernel is older than 5.12.
    """
    asked = struct.pack("=QQQQ", attributes, 0, 0, 0)
    flags = _THEM_ALL if recursively else 0
    done = confine.libc.syscall(
        _SET_ATTRIBUTES, _HERE, ctypes.c_char_p(os.fsencode(path)), flags, asked, ctypes.c_size_t(len(asked))
    )
    confine.check(done, f"attributes of the mount on {path}")


def _ways_of_python() -> list[str]:
    """Give what this interpreter reads, but for folders that only a link in its site-packages names."""
    roots = [sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.dirname(sys.executable or "")]
    own = [way for path in roots if path for way in confine.ways_to(path)]
    libraries = [path for path in sys.path if os.path.basename(path) in _SITE]
    return [*own, *libraries, *confine.ways_to(os.path.dirname(os.path.abspath(__file__)))]


def _plan(shown: Iterable[str], hidden: Iterable[str]) -> dict[str, bool]:
    """Give what is mounted in order, each with whether it is shown or hidden. What something else shows is left out."""
    there = {path for path in shown if path != os.sep and os.path.exists(path)}
    under = {path for path in hidden if os.path.isdir(path)}
    plan: dict[str, bool] = {}
    for path in sorted(there | under):
        above = [other for other in plan if path.startswith(other + os.sep)]
        nearest = bool(above) and plan[above[-1]]
        if path in there and (path in under or not nearest):
            plan[path] = True
        elif path not in there and nearest:
            plan[path] = False
    return plan


def _hold(path: str) -> int:
    return os.open(path, os.O_PATH | os.O_CLOEXEC)


def _show(held: int, place: str, attributes: int = _USABLE | READ_ONLY) -> None:
    confine.make_place(os.fstat(held), place)
    confine.mount(f"/proc/self/fd/{held}", place, None, BIND | RECURSIVE, None)
    set_attributes(place, attributes)


def _make_tmp(base: str, size_mb: int) -> None:
    os.mkdir(base + TMP, 0o755)
    confine.mount("tmpfs", base + TMP, "tmpfs", NO_SETUID | NO_DEVICES, f"size={size_mb}m,mode=1777")


def _make_devices(base: str, devices: Mapping[str, int]) -> None:
    os.mkdir(base + "/dev", 0o755)
    for name, held in devices.items():
        _show(held, f"{base}/dev/{name}", NO_SETUID | NO_EXECUTION)
    for name, target in _LINKS.items():
        os.symlink(target, f"{base}/dev/{name}")


def _make_proc(base: str, null: int) -> None:
    os.mkdir(base + "/proc", 0o755)
    confine.mount("proc", base + "/proc", "proc", NO_SETUID | NO_DEVICES | NO_EXECUTION, None)
    for name in _COVERED:
        if os.path.exists(f"{base}/proc/{name}"):
            confine.mount(f"/proc/self/fd/{null}", f"{base}/proc/{name}", None, BIND, None)
    for name in _EMPTIED:
        if os.path.exists(f"{base}/proc/{name}"):
            confine.mount(
                "tmpfs", f"{base}/proc/{name}", "tmpfs", READ_ONLY | _USABLE | NO_EXECUTION, "size=4k,mode=555"
            )


def _show_layers(base: str, layers: int, others: list[str]) -> None:
    """Show the layers as /opt; where the interpreter lies in the machine's /opt, beside it."""
    if not others:
        _show(layers, base + OPT)
        return
    os.mkdir(base + OPT, 0o755)
    source = f"/proc/self/fd/{layers}"
    for name in os.listdir(source):
        path = os.path.join(source, name)
        if os.path.islink(path):
            os.symlink(os.readlink(path), f"{base}{OPT}/{name}")
            continue
        held = _hold(path)
        _show(held, f"{base}{OPT}/{name}")
        os.close(held)


def _write_settings(folder: str, user: int, group: int) -> None:
    """Write what names the machine and its users: of those there is one, and root's name."""
    files = {
        "passwd": f"root:x:0:0:root:/:/bin/sh\nfunction:x:{user}:{group}::{TMP}:/bin/sh\n",
        "group": f"root:x:0:\nfunction:x:{group}:\n",
        "hosts": f"127.0.0.1 localhost {_SANDBOX_NAMES}\n::1 localhost\n",
        "hostname": "localhost\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        "resolv.conf": "",
    }
    for name, text in files.items():
        with open(f"{folder}/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _turn_to(base: str) -> None:
    """Make it the root of all processes here, and let go of the machine's."""
    number = _PIVOT_ROOT.get(os.uname().machine, -1)
    os.chdir(base)
    confine.check(confine.libc.syscall(number, b".", b"."), "a root of its own")
    confine.check(confine.libc.umount2(b".", _DETACH), "letting go of the machine's root")
    os.chdir("/")
