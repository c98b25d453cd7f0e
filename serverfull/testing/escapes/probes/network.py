"""Attempts at networks and sockets."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
from typing import Any

from .trying import Kept, not_nothing, opens, probe


@probe("network")
def reach_a_service_on_loopback(bait: Any) -> Any:
    """Talks to a service that listens on the machine's loopback alone, as databases do."""
    with socket.create_connection(("127.0.0.1", bait["tcp"]), 2) as line:
        return not_nothing(line.recv(100))


@probe("network")
def reach_a_service_by_its_other_address(bait: Any) -> Any:
    """Talks to it by ::1, which rules for 127.0.0.1 leave open."""
    with socket.create_connection(("::1", bait["tcp6"]), 2) as line:
        return not_nothing(line.recv(100))


@probe("network")
def reach_the_hosts_own_port(bait: Any) -> Any:
    """Calls the host's own API, which it could deploy by."""
    with socket.create_connection(("127.0.0.1", bait["api"]), 2):
        return "connected"


@probe("network")
def send_udp_on_loopback(bait: Any) -> Any:
    """Sends a datagram to a service on the machine's loopback, and gets an answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.settimeout(2)
        line.sendto(b"hello", ("127.0.0.1", bait["udp"]))
        return not_nothing(line.recv(100))


@probe("network")
def send_udp_out(bait: Any) -> Any:
    """Sends a datagram out of the machine, such as a question to a name server."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        return line.sendto(b"\0", ("192.0.2.1", 53))


@probe("network")
def reach_the_metadata_address(bait: Any) -> Any:
    """Sends a request to 169.254.169.254, where clouds give away credentials."""
    with socket.socket() as line:
        line.setblocking(False)
        number = line.connect_ex(("169.254.169.254", 80))
        if number not in (0, errno.EINPROGRESS, errno.ECONNREFUSED):
            raise OSError(number, os.strerror(number))
        return "under way"


@probe("network")
def send_to_all_neighbours(bait: Any) -> Any:
    """Sends a datagram to whoever is on the machine's network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        return line.sendto(b"\0", ("255.255.255.255", 9))


@probe("network")
def see_network_devices(bait: Any) -> Any:
    """Sees other network devices than loopback."""
    return not_nothing([name for _, name in socket.if_nameindex() if name not in ("lo", "sit0", "tunl0", "ip6tnl0")])


@probe("network")
def see_connections(bait: Any) -> Any:
    """Reads who is connected with what, in the host's network."""
    own = f":{bait['tcp']:04X} "
    with open("/proc/net/tcp") as table:
        return not_nothing([line for line in table if own in line])


@probe("network")
def ask_who_is_connected(bait: Any) -> Any:
    """Asks the kernel the same by netlink, which answers for more than files do."""
    states = struct.pack("=BBBxI48x", socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as line:
        line.settimeout(2)
        line.send(struct.pack("=IHHII", 16 + len(states), 20, 0x301, 1, 0) + states)
        return not_nothing(struct.pack("!H", bait["tcp"]) in line.recv(65536) and bait["tcp"])


@probe("network")
def see_unix_sockets(bait: Any) -> Any:
    """Reads which Unix sockets there are, by name."""
    with open("/proc/net/unix") as table:
        return not_nothing([line for line in table if bait["abstract"] in line])


@probe("network")
def change_a_network_device(bait: Any) -> Any:
    """Switches a device of the network on that is on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        found = fcntl.ioctl(line, 0x8913, struct.pack("16sh22x", b"lo", 0))
        fcntl.ioctl(line, 0x8914, found)
    return "switched"


@probe("network")
def open_a_socket_of_a_rare_protocol(bait: Any) -> Any:
    """Opens a socket of SCTP, DCCP, UDP-Lite, L2TP or MPTCP, which have let code out before."""
    for kind, protocol in ((5, 132), (6, 33), (2, 136), (2, 115), (1, 262)):
        with contextlib.suppress(OSError):
            socket.socket(socket.AF_INET, kind, protocol).close()
            return protocol
    raise Kept("none is there")


@probe("network")
def open_a_socket_of_a_rare_family(bait: Any) -> Any:
    """Opens a socket of a family that few use: Bluetooth, X.25, CAN, TIPC, XDP and the like."""
    known = {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET, 38, 40}
    for family in set(range(1, 47)) - known:
        for kind in (1, 2, 3, 5):
            with contextlib.suppress(OSError):
                socket.socket(family, kind).close()
                return family
    raise Kept("none is there")


@probe("network")
def open_a_raw_socket(bait: Any) -> Any:
    """Makes packets of its own."""
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    return "opened"


@probe("network")
def open_a_packet_socket(bait: Any) -> Any:
    """Listens to all packets."""
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300).close()
    return "opened"


@probe("network")
def hear_the_kernels_events(bait: Any) -> Any:
    """Hears by netlink of devices that come and go."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15) as line:
        line.bind((0, 1))
    return "bound"


@probe("network")
def open_a_socket_to_the_hypervisor(bait: Any) -> Any:
    """Opens a socket of AF_VSOCK, which no namespace holds."""
    socket.socket(40, socket.SOCK_STREAM).close()
    return "opened"


@probe("network")
def use_the_kernels_ciphers(bait: Any) -> Any:
    """Opens a socket of AF_ALG, which has let code out before."""
    with socket.socket(38, socket.SOCK_SEQPACKET) as line:
        line.bind(("hash", "sha256"))
    return "bound"


@probe("network")
def make_a_network_device(bait: Any) -> Any:
    """Opens the device that makes tunnels."""
    return opens("/dev/net/tun", os.O_RDWR)


@probe("network")
def reach_a_unix_socket(bait: Any) -> Any:
    """Talks to a Unix socket such as /run/docker.sock, whoever has that is root."""
    return ask(bait["unix"])


@probe("network")
def reach_a_unix_socket_in_tmp(bait: Any) -> Any:
    """Talks to a Unix socket in the machine's /tmp."""
    return ask(bait["unix_in_tmp"])


@probe("network")
def reach_an_abstract_socket(bait: Any) -> Any:
    """Talks to a Unix socket that has a name and no file."""
    return ask("\0" + bait["abstract"])


@probe("network")
def reach_any_unix_socket(bait: Any) -> Any:
    """Connects to any Unix socket that it can see."""
    for folder in ("/run", "/var/run", "/tmp", os.path.dirname(bait["unix"]), os.environ["LAMBDA_TASK_ROOT"]):
        for path, _, names in os.walk(folder):
            for name in names:
                with contextlib.suppress(OSError):
                    if stat.S_ISSOCK(os.lstat(os.path.join(path, name)).st_mode):
                        connected(os.path.join(path, name)).close()
                        return os.path.join(path, name)
    raise Kept("none is seen")


@probe("network")
def pass_a_descriptor_out(bait: Any) -> Any:
    """Gives a descriptor of its own to somebody outside, or gets one."""
    with connected("\0" + bait["abstract"]) as line:
        line.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", 1))])
    return "passed"


def connected(address: str) -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(2)
    line.connect(address)
    return line


def ask(address: str) -> Any:
    with connected(address) as line:
        return not_nothing(line.recv(100))
