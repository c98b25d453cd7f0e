"""Attempts at files of the machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import struct
import sys
import tempfile
from typing import Any

from .trying import PARENT, Kept, call, checked, create, libc, not_nothing, opens, probe, read


@probe("files")
def read_another_function(bait: Any) -> Any:
    """Reads the code of another function."""
    return read(bait["code"])


@probe("files")
def list_the_packages(bait: Any) -> Any:
    """Lists the folder that the host keeps packages in."""
    return not_nothing(os.listdir(bait["packages"]))


@probe("files")
def read_the_state(bait: Any) -> Any:
    """Reads the database of what is deployed."""
    return read(bait["state"])


@probe("files")
def write_the_state(bait: Any) -> Any:
    """Opens that database to write into it."""
    return opens(bait["state"])


@probe("files")
def read_a_secret_of_the_host(bait: Any) -> Any:
    """Reads a file that only the host's user may read."""
    return read(bait["secret"])


@probe("files")
def read_a_secret_through_a_link(bait: Any) -> Any:
    """Reads it through a symbolic link in its own /tmp."""
    link = os.path.join(tempfile.mkdtemp(), "link")
    os.symlink(bait["secret"], link)
    return read(link)


@probe("files")
def link_a_secret(bait: Any) -> Any:
    """Gives it a second name, in a folder of its own, which the host would take for the function's."""
    os.link(bait["secret"], os.path.dirname(bait["secret"]) + f"/link-{os.getpid()}")
    return "linked"  # in the folder of the baits, which is removed with them


@probe("files")
def read_a_secret_through_the_root_of_another(bait: Any) -> Any:
    """Reads it through /proc/PID/root of a process that sees it."""
    for pid in (1, PARENT, bait["host"], bait["victim"]):
        with contextlib.suppress(OSError):
            return read(f"/proc/{pid}/root{bait['secret']}")
    raise Kept("no process shows it")


@probe("files")
def read_a_secret_by_its_handle(bait: Any) -> Any:
    """Opens the root of the file system by its handle, whatever root there is, as the escape named Shocker did."""
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0) + bytes(128))
    mount = ctypes.c_int()
    call("name_to_handle_at", -100, ctypes.c_char_p(b"/"), handle, ctypes.byref(mount), 0)
    root = os.open("/", os.O_RDONLY)
    return call("open_by_handle_at", root, handle, os.O_RDONLY)


@probe("files")
def watch_a_secret(bait: Any) -> Any:
    """Is told when somebody uses that file."""
    line = checked(libc.inotify_init1(0))
    checked(libc.inotify_add_watch(line, os.fsencode(bait["secret"]), 0x1))
    return "watched"


@probe("files")
def read_the_tmp_of_the_machine(bait: Any) -> Any:
    """Reads a file in the machine's /tmp, where other programs keep theirs."""
    return read(bait["tmp"])


@probe("files")
def read_shared_memory_files(bait: Any) -> Any:
    """Reads a file in the machine's /dev/shm."""
    return read(bait["shm"])


@probe("files")
def write_shared_memory_files(bait: Any) -> Any:
    """Writes into /dev/shm."""
    return create("/dev/shm")


@probe("files")
def read_shadow(bait: Any) -> Any:
    """Reads the passwords of the machine's users."""
    return read("/etc/shadow")


@probe("files")
def read_the_home_of_the_host(bait: Any) -> Any:
    """Reads a file in the home folder of the host's user."""
    return read(bait["home"])


@probe("files")
def write_programs(bait: Any) -> Any:
    """Puts a file among the machine's programs."""
    return create("/usr")


@probe("files")
def write_settings(bait: Any) -> Any:
    """Puts a file into /etc."""
    return create("/etc")


@probe("files")
def write_the_root(bait: Any) -> Any:
    """Puts a file into the root folder."""
    return create("/")


@probe("files")
def write_var_tmp(bait: Any) -> Any:
    """Puts a file where it outlives the function."""
    return create("/var/tmp")


@probe("files")
def keep_a_file_without_a_name(bait: Any) -> Any:
    """Makes a file there that has no name, and fills the disk unseen."""
    os.close(os.open("/var/tmp", os.O_TMPFILE | os.O_WRONLY, 0o600))
    return "kept"


@probe("files")
def read_what_names_the_machine(bait: Any) -> Any:
    """Reads by what number the machine is known, to tell functions on it from others."""
    return read("/etc/machine-id")


@probe("files")
def read_what_the_kernel_was_started_with(bait: Any) -> Any:
    """Reads the kernel's command line, where disks and sometimes passwords are."""
    return read("/proc/cmdline")


@probe("files")
def see_what_disks_do(bait: Any) -> Any:
    """Reads what the machine's disks are and how much others use them."""
    return read("/proc/diskstats")


@probe("files")
def write_its_own_package(bait: Any) -> Any:
    """Changes the code that later environments of the function run."""
    return create(os.environ["LAMBDA_TASK_ROOT"])


@probe("files")
def write_the_interpreter(bait: Any) -> Any:
    """Puts a file into the folder of Python, which all functions share."""
    return create(sys.base_prefix)


@probe("files")
def overwrite_the_interpreter(bait: Any) -> Any:
    """Opens the program that it runs in to write into it, as CVE-2019-5736 did."""
    return opens("/proc/self/exe")


@probe("files")
def use_an_inherited_descriptor(bait: Any) -> Any:
    """Uses a folder or a file that somebody has left open."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            kind = os.fstat(int(name)).st_mode
            if stat.S_ISDIR(kind) or stat.S_ISREG(kind) or stat.S_ISBLK(kind):
                return not_nothing(os.readlink(f"/proc/self/fd/{name}").replace("/proc", ""))
    raise Kept("there is none")
