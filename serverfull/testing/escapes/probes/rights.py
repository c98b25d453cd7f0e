"""Attempts at rights, and at the machine's own files and groups."""

from __future__ import annotations

import contextlib
import glob
import os
import resource
import stat
import struct
import tempfile
from typing import Any

from .trying import Kept, libc, not_nothing, opens, probe, read


@probe("rights")
def become_root(bait: Any) -> Any:
    """Changes its user to root."""
    os.setresuid(0, 0, 0)
    return "root"


@probe("rights")
def join_groups(bait: Any) -> Any:
    """Joins a group, such as that of Docker."""
    os.setgroups([0, 999])
    return "joined"


@probe("rights")
def have_capabilities(bait: Any) -> Any:
    """Has any capability."""
    status = open("/proc/self/status").read()  # noqa: SIM115 - it ends with the process
    held = next(line for line in status.splitlines() if line.startswith("CapEff")).split()[1]
    return not_nothing(int(held, 16) and held)


@probe("rights")
def gain_by_a_program(bait: Any) -> Any:
    """May gain rights by a program that has the setuid bit."""
    return not_nothing(libc.prctl(39, 0, 0, 0, 0) == 0 and "nothing forbids it")


@probe("rights")
def give_a_program_rights(bait: Any) -> Any:
    """Gives a file of its own capabilities, for whoever runs it."""
    handle, path = tempfile.mkstemp()
    os.close(handle)
    os.setxattr(path, "security.capability", struct.pack("<IIIII", 0x2000001, 0x200000, 0, 0, 0))
    return "given"


@probe("rights")
def make_a_program_of_roots(bait: Any) -> Any:
    """Makes a file of its own one that is root's and has the setuid bit."""
    handle, path = tempfile.mkstemp()
    os.fchown(handle, 0, 0)
    os.fchmod(handle, 0o4755)
    os.close(handle)
    return not_nothing(os.stat(path).st_uid == 0 and not os.statvfs(path).f_flag & os.ST_NOSUID and "made")


@probe("rights")
def raise_a_limit(bait: Any) -> Any:
    """Opens more files than it may, having raised the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most + 1, most + 1))
    return most + 1


@probe("rights")
def make_a_device(bait: Any) -> Any:
    """Makes a device node, and reads from it."""
    path = os.path.join(tempfile.mkdtemp(), "zero")
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    return read(path, 1)


@probe("rights")
def read_a_disk(bait: Any) -> Any:
    """Reads a disk past its file system."""
    for path in glob.glob("/dev/*"):
        with contextlib.suppress(OSError):
            if stat.S_ISBLK(os.stat(path).st_mode):
                return read(path, 512)[:1]
    raise Kept("none is there")


@probe("rights")
def read_the_memory_of_the_machine(bait: Any) -> Any:
    """Opens the machine's memory as a device."""
    return opens("/dev/mem", os.O_RDONLY)


@probe("rights")
def read_the_kernels_memory(bait: Any) -> Any:
    """Reads the kernel's memory as a file."""
    return read("/proc/kcore", 4)


@probe("rights")
def read_where_the_kernel_is(bait: Any) -> Any:
    """Reads addresses of the kernel."""
    first = read("/proc/kallsyms", 16)
    return not_nothing(int(first, 16) and first)


@probe("rights")
def say_what_runs_at_a_crash(bait: Any) -> Any:
    """Opens core_pattern, which names a program that the kernel starts as root."""
    return opens("/proc/sys/kernel/core_pattern")


@probe("rights")
def say_what_loads_modules(bait: Any) -> Any:
    """Opens modprobe, which names another."""
    return opens("/proc/sys/kernel/modprobe")


@probe("rights")
def make_a_file_system_of_its_own(bait: Any) -> Any:
    """Opens the device by which programs are file systems, and can make whoever reads them wait."""
    return opens("/dev/fuse", os.O_RDWR)


@probe("rights")
def change_the_kernels_settings(bait: Any) -> Any:
    """Opens another of the kernel's settings to write."""
    return opens("/proc/sys/vm/drop_caches")


@probe("rights")
def press_the_magic_key(bait: Any) -> Any:
    """Opens what can stop the machine at once."""
    return opens("/proc/sysrq-trigger")


@probe("rights")
def see_devices_of_the_machine(bait: Any) -> Any:
    """Lists /sys."""
    return not_nothing(os.listdir("/sys/kernel"))


@probe("rights")
def make_a_control_group(bait: Any) -> Any:
    """Makes a control group."""
    for folder in _hierarchies():
        with contextlib.suppress(OSError):
            made = os.path.join(folder, f"serverfull-probe-{os.getpid()}")
            os.mkdir(made)
            os.rmdir(made)
            return folder
    raise Kept("nowhere")


@probe("rights")
def see_where_its_control_group_is(bait: Any) -> Any:
    """Learns which of the machine's groups it is in."""
    with open("/proc/self/cgroup") as groups:
        return not_nothing([line for line in groups if not line.rstrip().endswith(":/")])


@probe("rights")
def leave_its_control_group(bait: Any) -> Any:
    """Moves itself to where no limit is."""
    for folder in _hierarchies():
        with contextlib.suppress(OSError), open(os.path.join(folder, "cgroup.procs"), "wb", buffering=0) as entrance:
            entrance.write(b"0")
            return folder
    raise Kept("nowhere")


@probe("rights")
def say_what_runs_when_a_group_is_empty(bait: Any) -> Any:
    """Opens release_agent, which names a program that the kernel starts as root, as CVE-2022-0492 did."""
    for folder in _hierarchies():
        with contextlib.suppress(OSError):
            return opens(os.path.join(folder, "release_agent"))
    raise Kept("nowhere")


def _hierarchies() -> list[str]:
    return ["/sys/fs/cgroup", *glob.glob("/sys/fs/cgroup/*/")]
