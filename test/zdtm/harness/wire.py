# SPDX-License-Identifier: GPL-2.0-or-later
"""The page-server wire, spoken by hand, so that any part of it can be wrong."""

import socket
import struct

ADD, HOLE, OPEN, OPEN2, PARENT, ADD_F, GET = range(1, 8)
CLOSE, FORCE_CLOSE = 0x1023, 0x1024
LAZY, PRESENT = 2, 4
PAGE = 4096


def header(layout, command, pages=0, vaddr=0, id_=0, flags=0):
    form = "<IIQQ" if layout == 24 else "<IxxxxQQQ"
    return struct.pack(form, flags << 16 | command, pages, vaddr, id_)


def parse(layout, data):
    """(command, flags, pages, vaddr, id)."""
    command, pages, vaddr, id_ = struct.unpack("<IIQQ" if layout == 24 else "<IxxxxQQQ", data)
    return command & 0xFFFF, command >> 16, pages, vaddr, id_


class Client:
    """A connection to a page server. address: (host, port), or a path of a unix socket."""

    def __init__(self, address, layout=32, timeout=20):
        self.layout = layout
        kind = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
        self.socket = socket.socket(kind, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(address)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def read(self, length):
        """Exactly that many bytes, or EOFError."""
        data = bytearray()
        while len(data) < length:
            piece = self.socket.recv(min(length - len(data), 1 << 20))
            if not piece:
                raise EOFError(f"{len(data)} of {length} bytes came")
            data += piece
        return bytes(data)

    def ask(self, pid, vaddr, pages=1):
        self.send(header(self.layout, GET, pages, vaddr, pid))

    def reply(self):
        """(vaddr, id, bytes) of the next reply."""
        command, flags, pages, vaddr, id_ = parse(self.layout, self.read(self.layout))
        assert (command, flags) == (ADD_F, PRESENT), f"command {command:#x}, flags {flags:#x}"
        assert pages > 0
        return vaddr, id_, self.read(pages * PAGE)

    def get(self, pid, vaddr, pages=1):
        """The bytes of all those pages, however many replies it takes."""
        data = b""
        while len(data) < pages * PAGE:
            at, left = vaddr + len(data), pages - len(data) // PAGE
            self.ask(pid, at, left)
            got = self.reply()
            assert got[:2] == (at, pid) and len(got[2]) <= left * PAGE
            data += got[2]
        return data

    def say_close(self, command=CLOSE):
        """The status that CLOSE is answered with; the connection stays open."""
        self.send(header(self.layout, command))
        return struct.unpack("<i", self.read(4))[0]

    def is_closed(self, timeout=10):
        """Whether the other side has closed, and has sent nothing more before."""
        self.socket.settimeout(timeout)
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True
        except socket.timeout:
            return False
