"""Attempts at other processes."""

from __future__ import annotations

import ctypes
import glob
import os
import resource
import signal
import socket
import struct
from typing import Any

from .trying import PARENT, Kept, call, not_nothing, probe, read


@probe("processes")
def see_the_host(bait: Any) -> Any:
    """Sees the host among the processes."""
    return read(f"/proc/{bait['host']}/cmdline")


@probe("processes")
def see_the_zygote(bait: Any) -> Any:
    """Sees the process that it was forked from."""
    if not PARENT:
        raise Kept("its parent is nobody")
    return not_nothing(b"zygote" in read(f"/proc/{PARENT}/cmdline", 4096) and "zygote")


@probe("processes")
def see_the_lines_of_the_zygote(bait: Any) -> Any:
    """Lists what its parent has open, the line to the host among it."""
    return not_nothing([os.readlink(path) for path in glob.glob(f"/proc/{PARENT or 1}/fd/*")])


@probe("processes")
def read_the_environment_of_the_host(bait: Any) -> Any:
    """Reads the host's variables: credentials are often there."""
    return read(f"/proc/{bait['host']}/environ")


@probe("processes")
def read_the_map_of_the_host(bait: Any) -> Any:
    """Reads where in the host's memory things are."""
    return read(f"/proc/{bait['host']}/maps")


@probe("processes")
def read_the_mounts_of_the_host(bait: Any) -> Any:
    """Reads what the host has mounted."""
    return read(f"/proc/{bait['host']}/mountinfo")


@probe("processes")
def read_the_memory_of_another(bait: Any) -> Any:
    """Reads another process's memory as a file."""
    with open(f"/proc/{bait['victim']}/mem", "rb", buffering=0) as memory:
        memory.seek(bait["address"])
        return not_nothing(memory.read(8))


@probe("processes")
def read_the_memory_of_another_by_call(bait: Any) -> Any:
    """Reads it by process_vm_readv."""
    return _copy("process_vm_readv", bait)


@probe("processes")
def write_the_memory_of_another(bait: Any) -> Any:
    """Writes into it by process_vm_writev."""
    return _copy("process_vm_writev", bait)


def _copy(name: str, bait: Any) -> int:
    here = ctypes.create_string_buffer(b"changed!", 8)
    near = (ctypes.c_ulong * 2)(ctypes.addressof(here), 8)
    far = (ctypes.c_ulong * 2)(bait["address"], 8)
    return call(name, bait["victim"], near, 1, far, 1, 0)


@probe("processes")
def trace_another(bait: Any) -> Any:
    """Takes another process over by ptrace."""
    call("ptrace", 0x4206, bait["victim"], 0, 0)  # and lets it go by ending
    return "seized"


@probe("processes")
def trace_a_child(bait: Any) -> Any:
    """Has itself traced, which the kernel's faults in tracing need."""
    return call("ptrace", 0, 0, 0, 0)


@probe("processes")
def signal_the_host(bait: Any) -> Any:
    """May send the host a signal."""
    os.kill(bait["host"], 0)
    return "it would arrive"


@probe("processes")
def signal_another(bait: Any) -> Any:
    """Sends another process a signal."""
    os.kill(bait["victim"], signal.SIGUSR1)
    return "sent"


@probe("processes")
def signal_another_by_a_descriptor(bait: Any) -> Any:
    """Sends one by pidfd_send_signal, to whom its folder in /proc stands for."""
    return call("pidfd_send_signal", os.open(f"/proc/{bait['victim']}", os.O_RDONLY), signal.SIGUSR1, 0, 0) or "sent"


@probe("processes")
def claim_to_be_another(bait: Any) -> Any:
    """Sends who it is by a socket, and says that it is another process, and root."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        claim = struct.pack("iII", bait["victim"], 0, 0)
        ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, claim)])
    return "believed"


@probe("processes")
def take_a_descriptor_of_another(bait: Any) -> Any:
    """Takes what another process has open, by pidfd_getfd."""
    return call("pidfd_getfd", call("pidfd_open", bait["victim"], 0), 0, 0)


@probe("processes")
def change_the_limits_of_another(bait: Any) -> Any:
    """Reads and sets the limits of another process."""
    return resource.prlimit(bait["victim"], resource.RLIMIT_NOFILE)


@probe("processes")
def change_the_priority_of_another(bait: Any) -> Any:
    """Makes another process slower."""
    os.setpriority(os.PRIO_PROCESS, bait["victim"], 1)
    return "slower"


@probe("processes")
def compare_with_another(bait: Any) -> Any:
    """Learns of another process's memory by kcmp."""
    return call("kcmp", os.getpid(), bait["victim"], 1, 0, 0)


@probe("processes")
def have_real_time(bait: Any) -> Any:
    """Runs before all other processes of the machine."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    return "first"


@probe("processes")
def be_nicer_to_itself(bait: Any) -> Any:
    """Takes more of the processor than others."""
    return os.nice(-5)


@probe("processes")
def have_the_disks_first(bait: Any) -> Any:
    """Has its reading and writing done before all others'."""
    return call("ioprio_set", 1, 0, 1 << 13) or "first"


@probe("processes")
def be_killed_last(bait: Any) -> Any:
    """Has others killed where the machine runs out of memory."""
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("-1000")
    return "last"
