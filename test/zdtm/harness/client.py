# SPDX-License-Identifier: GPL-2.0-or-later
"""Plays the restore on lazy-pages.socket: every item by hand, so that any of them can be wrong."""

import ctypes
import fcntl
import os
import socket
import struct

RESTORE_FINISHED = 0x52535446
SYS_USERFAULTFD = 323
UFFDIO_API = 0xC018AA3F
# fork, remap, remove, unmap: what CRIU asks for
FEATURES = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 6


def userfaultfd():
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(SYS_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "userfaultfd")
    fcntl.ioctl(fd, UFFDIO_API, bytearray(struct.pack("=QQQ", 0xAA, FEATURES, 0)))
    return fd


class Client:
    def __init__(self, work):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(10)
        self.socket.connect(str(work / "lazy-pages.socket"))

    def send(self, data):
        """Whoever listens may have had enough of us: that is theirs to decide."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def send_word(self, word):
        self.send(struct.pack("<I", word & 0xFFFFFFFF))

    def send_descriptor(self, *fds):
        socket.send_fds(self.socket, [b"\0"], list(fds))

    def send_item(self, pid, fd):
        self.send_word(pid)
        self.send_descriptor(fd)

    def close(self):
        self.socket.close()
