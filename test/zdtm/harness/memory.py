# SPDX-License-Identifier: GPL-2.0-or-later
"""Another process's memory, from outside; and the pattern of lazytest.h once more, in Python."""

import ctypes
import os
import struct

PAGE = 4096
MASK = (1 << 64) - 1


def random_mix(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def page(seed, key):
    """What pages_fill() puts into the page with that key."""
    return struct.pack("<512Q", *(random_mix(seed ^ ((key << 9) & MASK) ^ i) for i in range(512)))


def read_proc_mem(pid, address, length):
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as f:
        f.seek(address)
        return f.read(length)


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


def _process_vm(call, pid, address, buffer):
    local = _Iovec(ctypes.addressof(buffer), len(buffer))
    remote = _Iovec(address, len(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    function = getattr(libc, call)
    function.restype = ctypes.c_ssize_t
    n = function(pid, ctypes.byref(local), ctypes.c_ulong(1), ctypes.byref(remote),
                 ctypes.c_ulong(1), ctypes.c_ulong(0))
    if n < 0:
        raise OSError(ctypes.get_errno(), f"{call}: {os.strerror(ctypes.get_errno())}")
    return n


def read_process_vm(pid, address, length):
    buffer = (ctypes.c_char * length)()
    n = _process_vm("process_vm_readv", pid, address, buffer)
    return buffer.raw[:n]


def write_process_vm(pid, address, data):
    return _process_vm("process_vm_writev", pid, address,
                       (ctypes.c_char * len(data)).from_buffer_copy(data))


def core_segments(path):
    """The PT_LOAD segments of an ELF64 core: (address, bytes in memory, bytes in the file)."""
    with open(path, "rb") as f:
        head = f.read(64)
        assert head[:5] == b"\x7fELF\x02", "not an ELF64 file"
        (offset,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        f.seek(offset)
        table = f.read(size * count)
        for i in range(count):
            kind, _, at, address, _, in_file, in_memory = struct.unpack_from(
                "<IIQQQQQ", table, i * size)
            if kind == 1:
                f.seek(at)
                yield address, in_memory, f.read(in_file)
