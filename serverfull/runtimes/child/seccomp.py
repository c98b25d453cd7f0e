"""The system calls that a process of the sandbox level ``strict`` cannot make: a filter of seccomp(2), for ever.

What needs a capability fails without the filter as well; with it the kernel's code for that is not even reached. What
the filter names is refused with EPERM. What this table does not know, because the kernel is newer, does not exist
(ENOSYS), and neither do the calls of another architecture: their numbers would mean something else.

Kernel: https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from . import confine

_NEWEST = 469
"""The highest number that this table was made with; from 424 on they are the same on all architectures."""

_EVERYWHERE = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "statmount": 457,
    "listmount": 458,
    "open_tree_attr": 467,
}

_X86_64 = {
    "ptrace": 101,
    "syslog": 103,
    "vhangup": 153,
    "modify_ldt": 154,
    "pivot_root": 155,
    "_sysctl": 156,
    "adjtimex": 159,
    "chroot": 161,
    "acct": 163,
    "settimeofday": 164,
    "mount": 165,
    "umount2": 166,
    "swapon": 167,
    "swapoff": 168,
    "reboot": 169,
    "sethostname": 170,
    "setdomainname": 171,
    "iopl": 172,
    "ioperm": 173,
    "create_module": 174,
    "init_module": 175,
    "delete_module": 176,
    "get_kernel_syms": 177,
    "query_module": 178,
    "quotactl": 179,
    "nfsservctl": 180,
    "lookup_dcookie": 212,
    "clock_settime": 227,
    "kexec_load": 246,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "migrate_pages": 256,
    "unshare": 272,
    "move_pages": 279,
    "perf_event_open": 298,
    "fanotify_init": 300,
    "name_to_handle_at": 303,
    "open_by_handle_at": 304,
    "clock_adjtime": 305,
    "setns": 308,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "kcmp": 312,
    "finit_module": 313,
    "kexec_file_load": 320,
    "bpf": 321,
    "userfaultfd": 323,
}

_AARCH64 = {
    "lookup_dcookie": 18,
    "umount2": 39,
    "mount": 40,
    "pivot_root": 41,
    "nfsservctl": 42,
    "chroot": 51,
    "vhangup": 58,
    "quotactl": 60,
    "acct": 89,
    "unshare": 97,
    "kexec_load": 104,
    "init_module": 105,
    "delete_module": 106,
    "clock_settime": 112,
    "syslog": 116,
    "ptrace": 117,
    "reboot": 142,
    "sethostname": 161,
    "setdomainname": 162,
    "settimeofday": 170,
    "adjtimex": 171,
    "add_key": 217,
    "request_key": 218,
    "keyctl": 219,
    "swapon": 224,
    "swapoff": 225,
    "migrate_pages": 238,
    "move_pages": 239,
    "perf_event_open": 241,
    "fanotify_init": 262,
    "name_to_handle_at": 264,
    "open_by_handle_at": 265,
    "clock_adjtime": 266,
    "setns": 268,
    "process_vm_readv": 270,
    "process_vm_writev": 271,
    "kcmp": 272,
    "finit_module": 273,
    "bpf": 280,
    "userfaultfd": 282,
    "kexec_file_load": 294,
}

# What depends on arguments: clone, clone3, ioctl, socket, socketpair, personality, mknod (of x86 alone), mknodat.
_SPECIAL = {
    "x86_64": {
        "ioctl": 16,
        "socket": 41,
        "socketpair": 53,
        "clone": 56,
        "mknod": 133,
        "personality": 135,
        "mknodat": 259,
        "clone3": 435,
    },
    "aarch64": {
        "ioctl": 29,
        "mknodat": 33,
        "personality": 92,
        "socket": 198,
        "socketpair": 199,
        "clone": 220,
        "clone3": 435,
    },
}

_ARCHITECTURES = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _AARCH64)}

_NAMESPACES = 0x7E020000
"""All flags of clone(2) that make a namespace."""

_TYPE_INTO_TERMINAL = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX."""

_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_STREAM, _DATAGRAM, _RAW, _PACKET, _KINDS = 1, 2, 3, 10, 0xF
_PROTOCOLS = (0, 6, 17)
"""TCP and UDP, named or not. All others are the kernel's less travelled ways, and loaded by whoever asks for them."""

_ROUTES = 0
_PERSONALITIES = (0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_DEVICES, _TYPES = (0x2000, 0x6000), 0xF000

_LOAD, _EQUAL, _AT_LEAST, _ANY_OF, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16

_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000

_SET_SECCOMP, _FILTER = 22, 2


def program(machine: str) -> bytes:
    """Give the filter for an architecture.

    :param machine: as `os.uname` gives it.
    :raises OSError: there is none for that.
    """
    if machine not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"there is no filter of system calls for {machine}")
    architecture, refused = _ARCHITECTURES[machine]
    code = [
        *(_step(_LOAD, _ARCHITECTURE), _step(_EQUAL, architecture, 1, 0), _end(errno.ENOSYS)),
        # x32 is above all of them too: it counts from 0x40000000.
        *(_step(_LOAD, _NUMBER), _step(_AT_LEAST, _NEWEST + 1, 0, 1), _end(errno.ENOSYS)),
    ]
    for number in sorted({*refused.values(), *_EVERYWHERE.values()}):
        code += [_step(_EQUAL, number, 0, 1), _end(errno.EPERM)]
    for name, number in _SPECIAL[machine].items():
        steps = _steps_of(name)
        code += [_step(_EQUAL, number, 0, len(steps)), *steps]
    return b"".join([*code, _end(0)])


def install(filtering: bytes) -> None:
    """Put the calling thread, and all that it will ever start, behind a filter. It cannot be taken away.

    :param filtering: what `program` gives.
    :raises OSError: the kernel has no such filters, or the process may gain rights yet.
    """
    held = ctypes.create_string_buffer(filtering, len(filtering))

    class _Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]

    whole = _Program(len(filtering) // 8, ctypes.addressof(held))
    done = confine.libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(whole), 0, 0)
    confine.check(done, "the filter of system calls")


def _steps_of(name: str) -> list[bytes]:
    """Give what is done for a call that depends on its arguments; every way through it ends."""
    if name == "clone3":  # its flags are in memory, where no filter looks; libraries then take clone
        return [_end(errno.ENOSYS)]
    if name == "clone":
        return [_argument(0), _step(_ANY_OF, _NAMESPACES, 0, 1), _end(errno.EPERM), _end(0)]
    if name == "ioctl":
        return [_argument(1), *_if_one_of(_TYPE_INTO_TERMINAL, errno.EPERM), _end(0)]
    if name == "socketpair":
        return [_argument(0), *_if_one_of((_UNIX,), 0), _end(errno.EAFNOSUPPORT)]
    if name == "personality":
        return [_argument(0), *_if_one_of(_PERSONALITIES, 0), _end(errno.EPERM)]
    if name in ("mknod", "mknodat"):
        mode = 1 if name == "mknod" else 2
        return [_argument(mode), _step(_AND, _TYPES), *_if_one_of(_DEVICES, errno.EPERM), _end(0)]
    assert name == "socket"
    routes = [_argument(2), *_if_one_of((_ROUTES,), 0), _end(errno.EPERM)]
    kinds = [_argument(1), _step(_AND, _KINDS), *_if_one_of((_RAW, _PACKET), errno.EPERM)]
    kinds += [_step(_EQUAL, _STREAM, 2, 0), _step(_EQUAL, _DATAGRAM, 1, 0), _end(errno.ESOCKTNOSUPPORT)]
    plain = [*kinds, _argument(2), *_if_one_of(_PROTOCOLS, 0), _end(errno.EPROTONOSUPPORT)]
    return [
        *(_argument(0), *_if_one_of((_UNIX,), 0)),
        *(_step(_EQUAL, _NETLINK, 0, len(routes)), *routes),
        *(_step(_EQUAL, _INET, 1, 0), _step(_EQUAL, _INET6, 0, len(plain)), *plain),
        _end(errno.EAFNOSUPPORT),
    ]


def _argument(index: int) -> bytes:
    """Load the lower half of an argument: both architectures are little-endian, and the kernel takes ints from it."""
    return _step(_LOAD, _ARGUMENTS + 8 * index)


def _if_one_of(values: tuple[int, ...], error: int) -> list[bytes]:
    return [step for value in values for step in (_step(_EQUAL, value, 0, 1), _end(error))]


def _end(error: int) -> bytes:
    """Refuse with an error; 0: allow."""
    return _step(_RETURN, _REFUSE | error if error else _ALLOW)


def _step(code: int, value: int, if_so: int = 0, if_not: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_so, if_not, value)


HERE = program(os.uname().machine) if os.uname().machine in _ARCHITECTURES else b""
"""The filter for this machine, made once in the zygote; empty where there is none."""
