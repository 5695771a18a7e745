"""The plan of src/common/fault.h, written and read from outside."""

import mmap
import os
import pathlib
import re
import struct

SLOTS, NAME, SIZE = 64, 40, 72
KILL, ERROR, DELAY = 0, 1, 2
FOREVER = 2**64 - 1
TREE = pathlib.Path(__file__).resolve().parents[2]


def points():
    """Every point that the code names."""
    found = set()
    for path in (TREE / "src").rglob("*.c"):
        found |= set(re.findall(r'FAULT_POINT\("([a-z.]+)"\)', path.read_text()))
    return sorted(found)


class Plan:
    """A slot for each name, which may be ROLE/POINT."""

    def __init__(self, path, names):
        self.names = list(names)
        assert len(self.names) <= SLOTS
        path.write_bytes(b"".join(struct.pack(f"<{NAME}sQQQII", n.encode(), 0, 0, 0, 0, 0) for n in self.names)
                         .ljust(SLOTS * SIZE, b"\0"))
        fd = os.open(path, os.O_RDWR)
        self.map = mmap.mmap(fd, SLOTS * SIZE)
        os.close(fd)

    def at(self, name):
        return self.names.index(name) * SIZE + NAME

    def hits(self, name):
        return struct.unpack_from("<Q", self.map, self.at(name))[0]

    def left(self, name):
        return struct.unpack_from("<Q", self.map, self.at(name) + 16)[0]

    def arm(self, name, action, value=0, after=1, times=1):
        """Acts at the after-th hit from now, and at so many in all."""
        at = self.at(name)
        self.disarm(name)
        struct.pack_into("<Q", self.map, at + 8, self.hits(name) + after)
        struct.pack_into("<II", self.map, at + 24, action, value)
        struct.pack_into("<Q", self.map, at + 16, times)

    def disarm(self, name):
        struct.pack_into("<Q", self.map, self.at(name) + 16, 0)

    def disarm_all(self):
        for name in self.names:
            self.disarm(name)
