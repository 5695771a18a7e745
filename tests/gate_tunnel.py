"""Lines without a cable, for tests of the gate: a pair of tun devices in two network namespaces, and what is written to one comes
out of the other. Run by itself: gate_tunnel.py pair NETNS NETNS ("-" is the world's own namespace).
"""

import ctypes
import fcntl
import os
import pathlib
import select
import struct
import subprocess
import sys

IFF_TUN, IFF_NO_PI, TUNSETIFF = 1, 0x1000, 0x400454ca
CLONE_NEWNET = 0x40000000


def popen_pair(*namespaces):
    """Two devices called line0, while the process lives."""
    p = subprocess.Popen([sys.executable, __file__, "pair", *namespaces], text=True, stdout=subprocess.PIPE)
    assert p.stdout.readline() == "ready\n"
    return p


# What runs by itself


def enter(netns):
    with open("/proc/1/ns/net" if netns == "-" else pathlib.Path("/run/netns", netns)) as f:
        if ctypes.CDLL(None, use_errno=True).setns(f.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"the namespace {netns}")


def tun(netns, name="line0"):
    enter(netns)
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    os.set_blocking(fd, False)
    return fd


def write(fd, packet):
    try:
        os.write(fd, packet)
    except OSError:
        pass  # the device is down: as a cable would


def pair(*namespaces):
    ends = [tun(n) for n in namespaces]
    print("ready", flush=True)
    while True:
        for fd in select.select(ends, [], [])[0]:
            write(ends[ends.index(fd) - 1], os.read(fd, 65536))


if __name__ == "__main__":
    {"pair": pair}[sys.argv[1]](*sys.argv[2:])
