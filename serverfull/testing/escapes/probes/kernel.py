"""Attempts at the kernel: calls that have let code out before, or change what it sees."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import struct
import tempfile
from typing import Any

from .trying import ARM, call, checked, libc, probe

_NEW_MOUNTS, _NEW_USER = 0x20000, 0x10000000


@probe("kernel")
def make_a_user_namespace(bait: Any) -> Any:
    """Becomes root of a namespace: most ways out begin so."""
    return call("unshare", _NEW_USER) or "made"


@probe("kernel")
def clone_a_user_namespace(bait: Any) -> Any:
    """Forks into one."""
    return _forked("clone", _NEW_USER | signal.SIGCHLD, 0, 0, 0, 0)


@probe("kernel")
def clone_a_user_namespace_by_its_successor(bait: Any) -> Any:
    """Forks into one by clone3, whose flags no filter sees."""
    return _forked("clone3", struct.pack("=QQQQQQQQ", _NEW_USER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0), 64)


def _forked(name: str, *arguments: Any) -> str:
    made = call(name, *arguments)
    if made == 0:
        os._exit(0)
    os.waitpid(made, 0)
    return "forked"


@probe("kernel")
def make_a_mount_namespace(bait: Any) -> Any:
    """Makes a namespace of mounts."""
    return call("unshare", _NEW_MOUNTS) or "made"


@probe("kernel")
def enter_a_namespace(bait: Any) -> Any:
    """Enters a namespace, the one that it is in."""
    return call("setns", os.open("/proc/self/ns/uts", os.O_RDONLY), 0) or "entered"


@probe("kernel")
def enter_the_hosts_namespace(bait: Any) -> Any:
    """Enters the host's mounts."""
    return call("setns", os.open(f"/proc/{bait['host']}/ns/mnt", os.O_RDONLY), _NEW_MOUNTS) or "entered"


@probe("kernel")
def mount_a_file_system(bait: Any) -> Any:
    """Mounts something over a folder of its own."""
    place = tempfile.mkdtemp().encode()
    checked(libc.mount(b"probe", place, b"tmpfs", ctypes.c_ulong(0), None))
    return checked(libc.umount2(place, 2)) or "mounted"


@probe("kernel")
def mount_by_the_new_calls(bait: Any) -> Any:
    """Makes a file system by fsopen."""
    return call("fsopen", ctypes.c_char_p(b"tmpfs"), 0)


@probe("kernel")
def copy_a_mount(bait: Any) -> Any:
    """Takes a copy of the root's mount by open_tree."""
    return call("open_tree", -100, ctypes.c_char_p(b"/"), 1)


@probe("kernel")
def change_a_mount(bait: Any) -> Any:
    """Changes how the root is mounted, to what it is."""
    return call("mount_setattr", -100, ctypes.c_char_p(b"/"), 0, ctypes.create_string_buffer(32), 32) or "changed"


@probe("kernel")
def list_mounts(bait: Any) -> Any:
    """Has the kernel list what is mounted, by a call newer than most filters."""
    wanted = ctypes.create_string_buffer(struct.pack("=IIQQ", 24, 0, 0xFFFFFFFFFFFFFFFF, 0), 24)
    return call("listmount", wanted, ctypes.create_string_buffer(80), 10, 0)


@probe("kernel")
def change_its_root(bait: Any) -> Any:
    """Calls chroot, by which a root of its own can be left again."""
    os.chroot(tempfile.mkdtemp())
    return "changed"


@probe("kernel")
def load_a_program_into_the_kernel(bait: Any) -> Any:
    """Makes a map for programs of BPF."""
    return call("bpf", 0, ctypes.create_string_buffer(struct.pack("=IIII", 2, 4, 4, 1), 128), 128)


@probe("kernel")
def use_io_uring(bait: Any) -> Any:
    """Makes a ring of io_uring, which goes around filters."""
    return call("io_uring_setup", 1, ctypes.create_string_buffer(120))


@probe("kernel")
def handle_page_faults(bait: Any) -> Any:
    """Makes the kernel wait at will, by userfaultfd."""
    return call("userfaultfd", 1)


@probe("kernel")
def measure_the_processor(bait: Any) -> Any:
    """Counts events of the processor, by perf_event_open."""
    wanted = struct.pack("=IIQ", 1, 112, 0) + bytes(96)
    return call("perf_event_open", ctypes.create_string_buffer(wanted, 112), 0, -1, -1, 0)


@probe("kernel")
def watch_a_file_system(bait: Any) -> Any:
    """Is told of all that happens in a file system, by fanotify."""
    return call("fanotify_init", 0x200, 0)


@probe("kernel")
def move_pages(bait: Any) -> Any:
    """Asks where in the machine's memory another's pages are."""
    return call("move_pages", bait["victim"], 0, 0, 0, 0, 0)


@probe("kernel")
def load_a_module(bait: Any) -> Any:
    """Loads an empty module, which is refused for being none where it may."""
    try:
        call("init_module", ctypes.c_char_p(b""), 0, ctypes.c_char_p(b""))
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
    return "it may"


@probe("kernel")
def reboot_the_machine(bait: Any) -> Any:
    """Asks for a reboot with the wrong word, which is refused for that where it may."""
    try:
        call("reboot", 1, 2, 3, 0)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return "it may"


@probe("kernel")
def account_for_processes(bait: Any) -> Any:
    """Has the kernel write of each process that ends, into a file that is not there."""
    try:
        call("acct", ctypes.c_char_p(b"/not/there"))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
    return "it may"


@probe("kernel")
def use_input_and_output_ports(bait: Any) -> Any:
    """Talks to devices past the kernel."""
    return call("ioperm", 0x80, 1, 1) or "it may"


@probe("kernel")
def change_segments(bait: Any) -> Any:
    """Changes the table of segments."""
    return call("modify_ldt", 0, ctypes.create_string_buffer(64), 64) or "read"


@probe("kernel")
def turn_off_random_addresses(bait: Any) -> Any:
    """Has programs that it starts laid out foreseeably."""
    return checked(libc.personality(ctypes.c_ulong(0x40000))) or "off"


@probe("kernel")
def call_as_a_program_of_32_bits(bait: Any) -> Any:
    """Makes a call by the numbers of 32 bits, which filters forget."""
    if ARM:
        raise OSError(errno.ENOSYS, "not on this architecture")
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\x53\xb8\x14\x00\x00\x00\xcd\x80\x5b\xc3")  # push rbx; mov eax, 20 (getpid); int 0x80; pop rbx; ret
    place = ctypes.addressof(ctypes.c_char.from_buffer(code))
    made = ctypes.CFUNCTYPE(ctypes.c_int)(place)()
    if made < 0:
        raise OSError(-made, os.strerror(-made))
    return made
