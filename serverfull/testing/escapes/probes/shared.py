"""Attempts at what all processes of a machine share, beside files."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from typing import Any

from .trying import call, checked, libc, not_nothing, opens, probe


@probe("shared")
def attach_shared_memory(bait: Any) -> Any:
    """Attaches shared memory of System V that is another's."""
    libc.shmat.restype = ctypes.c_void_p
    place = libc.shmat(bait["shmid"], None, 0)
    if place in (None, ctypes.c_void_p(-1).value):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return ctypes.string_at(place, 6)


@probe("shared")
def list_shared_memory(bait: Any) -> Any:
    """Lists all of it that there is."""
    with open("/proc/sysvipc/shm") as table:
        return not_nothing(table.readlines()[1:])


@probe("shared")
def take_a_message(bait: Any) -> Any:
    """Takes a message out of a queue of System V of another's."""
    taken = ctypes.create_string_buffer(200)
    return not_nothing(call("msgrcv", bait["msgid"], taken, 100, 0, 0o4000 | 0o40000))  # a copy of it


@probe("shared")
def read_a_semaphore(bait: Any) -> Any:
    """Reads a semaphore of System V of another's."""
    return not_nothing(call("semctl", bait["semid"], 0, 12))


@probe("shared")
def read_a_message_queue(bait: Any) -> Any:
    """Opens a POSIX message queue of another's."""
    queue = libc.mq_open(bait["queue"].encode(), os.O_RDONLY)
    return checked(queue)


@probe("shared")
def name_the_machine(bait: Any) -> Any:
    """Sets the name of the machine, to what it is."""
    name = socket.gethostname().encode()
    return checked(libc.sethostname(name, len(name)))


@probe("shared")
def set_the_clock(bait: Any) -> Any:
    """Sets how fast the machine's clock goes, to what it is."""
    clock = ctypes.create_string_buffer(256)
    call("adjtimex", clock)
    ctypes.memmove(clock, struct.pack("I", 2), 4)
    call("adjtimex", clock)
    return "set"


@probe("shared")
def use_keys(bait: Any) -> Any:
    """Uses the kernel's keys, which no namespace holds by itself."""
    return call("keyctl", 0, -3, 1)


@probe("shared")
def add_a_key(bait: Any) -> Any:
    """Leaves a key with the kernel."""
    return call("add_key", ctypes.c_char_p(b"user"), ctypes.c_char_p(b"serverfull-probe"), ctypes.c_char_p(b"x"), 1, -2)


@probe("shared")
def read_the_kernels_log(bait: Any) -> Any:
    """Reads the kernel's messages."""
    return call("syslog", 3, ctypes.create_string_buffer(4096), 4096) or "read"


@probe("shared")
def read_kernel_messages_as_a_device(bait: Any) -> Any:
    """Opens them as a device."""
    return opens("/dev/kmsg", os.O_RDONLY)


@probe("shared")
def type_into_a_terminal(bait: Any) -> Any:
    """Puts text into a terminal as if somebody typed it."""
    leader, follower = os.openpty()
    fcntl.ioctl(follower, 0x5412, b"x")
    os.close(leader)
    return "typed"


@probe("shared")
def write_to_a_terminal(bait: Any) -> Any:
    """Opens a terminal that somebody else sits at."""
    return opens(bait["terminal"], os.O_RDWR | os.O_NOCTTY)
