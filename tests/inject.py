"""System calls made in a process that runs already, as its taken-over code would make them.

    with Inside(pid) as p:
        p.call("socket", 2, 1, 0)        # >= 0, or -errno
        p.call("execve", b"/bin/sh", 0, 0)  # raises Killed when seccomp ends the process

The thread is stopped (ptrace), sent to a `syscall` instruction of the vDSO or libc with registers of ours, and put back as it was.
Only for x86-64.
"""

import ctypes
import os
import pathlib
import re
import signal

ATTACH, DETACH, GETREGS, SETREGS, SINGLESTEP = 16, 17, 12, 13, 9
NAMES = ("r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs"
         .split())
NUMBERS = {"read": 0, "open": 2, "close": 3, "mmap": 9, "socket": 41, "connect": 42, "bind": 49, "clone": 56, "fork": 57,
           "execve": 59, "kill": 62, "rename": 82, "unlink": 87, "symlink": 88, "chmod": 90, "ptrace": 101, "setuid": 105,
           "mknod": 133, "prctl": 157, "chroot": 161, "mount": 165, "init_module": 175, "openat": 257, "unshare": 272,
           "process_vm_readv": 310, "bpf": 321, "memfd_create": 319, "userfaultfd": 323, "pidfd_getfd": 438,
           "io_uring_setup": 425, "add_key": 248, "perf_event_open": 298, "clone3": 435}


class Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in NAMES]


class Killed(Exception):
    """The process ended at once; the signal."""


libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, tid, data=None):
    if libc.ptrace(request, tid, None, data) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), f"ptrace {request}")


def find_syscall(pid):
    """The address of a `syscall` instruction in the process's libc."""
    for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
        m = re.match(r"([0-9a-f]+)-([0-9a-f]+) r-xp .*/libc\.so", line)
        if m:
            start, end = int(m[1], 16), int(m[2], 16)
            with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
                memory.seek(start)
                at = memory.read(end - start).find(b"\x0f\x05")
            if at >= 0:
                return start + at
    raise LookupError("no syscall instruction")


class Inside:
    def __init__(self, pid, tid=None):
        self.pid, self.tid, self.alive = pid, tid or pid, True

    def __enter__(self):
        self.gate = find_syscall(self.pid)
        ptrace(ATTACH, self.tid)
        self.wait()
        self.before = Registers()
        ptrace(GETREGS, self.tid, ctypes.byref(self.before))
        self.memory = open(f"/proc/{self.pid}/mem", "r+b", buffering=0)
        return self

    def __exit__(self, *_):
        self.memory.close()
        if self.alive:
            ptrace(SETREGS, self.tid, ctypes.byref(self.before))
            ptrace(DETACH, self.tid)

    def wait(self):
        _, status = os.waitpid(self.tid, 0x40000000)  # __WALL: threads too
        if os.WIFSIGNALED(status):
            self.alive = False
            raise Killed(signal.Signals(os.WTERMSIG(status)))
        return os.WSTOPSIG(status)

    def call(self, name, *arguments):
        """What the kernel answers. An argument of octets is a string; it lies below the stack meanwhile."""
        registers = Registers.from_buffer_copy(self.before)
        registers.rsp -= 8192
        at, kept, values = registers.rsp - 4096, [], []
        for argument in arguments:
            if isinstance(argument, bytes):
                self.memory.seek(at)
                kept.append((at, self.memory.read(len(argument) + 1)))
                self.memory.seek(at)
                self.memory.write(argument + b"\0")
                values.append(at)
                at += len(argument) + 16
            else:
                values.append(argument & 0xffffffffffffffff)
        for register, value in zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), values + [0] * 6):
            setattr(registers, register, value)
        # orig_rax: what it was stopped in is not begun again now.
        registers.rax, registers.orig_rax, registers.rip = NUMBERS[name], 0xffffffffffffffff, self.gate
        ptrace(SETREGS, self.tid, ctypes.byref(registers))
        ptrace(SINGLESTEP, self.tid)
        self.wait()
        ptrace(GETREGS, self.tid, ctypes.byref(registers))
        for at, octets in kept:
            self.memory.seek(at)
            self.memory.write(octets)
        return ctypes.c_long(registers.rax).value
