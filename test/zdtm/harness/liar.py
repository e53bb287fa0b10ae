# SPDX-License-Identifier: GPL-2.0-or-later
"""A page server in the tests' hands: it has the right bytes, and says what it likes.

    liar = Liar(images, layout=32)      # the whole images; listens at liar.port
    liar.lie = LIES["wrong address"]    # of the answers from now on; None: honest
    liar.told                           # how many lies have been told
    liar.gets                           # (pid, address, pages) of every GET

The answers of a lie end in a closed connection where nothing else would end it; a client that has
found it out will have gone before. There is no lie here that an honest answer could be: a page of
wrong bytes under a right header is nothing that anyone could find out.
"""

import socket
import struct
import threading

from . import images

ADD_F, GET, CLOSE = 6, 7, 0x1023
PRESENT = images.PRESENT
HEADERS = {24: struct.Struct("=IIQQ"), 32: struct.Struct("=IxxxxQQQ")}


class End(Exception):
    """The connection is to be closed."""


class Answer:
    """What an honest server would say to one GET; send() says it, lies say something else."""

    def __init__(self, liar, connection, pid, vaddr, data):
        self.liar, self.connection = liar, connection
        self.pid, self.vaddr, self.data = pid, vaddr, data
        self.pages = len(data) // images.PAGE

    def header(self, command=ADD_F, flags=PRESENT, **other):
        of = {"pages": self.pages, "vaddr": self.vaddr, "pid": self.pid, **other}
        return HEADERS[self.liar.layout].pack(command | flags << 16, of["pages"], of["vaddr"],
                                              of["pid"])

    def send(self, data=None, **header):
        self.connection.sendall(self.header(**header) + (self.data if data is None else data))

    def send_and_end(self, data):
        self.connection.sendall(data)
        raise End


def nonsense(count):
    return bytes(i * 37 + 11 & 255 for i in range(count))


# Name: what is said in the place of the answer.
LIES = {
    "address of another page": lambda a: a.send(vaddr=a.vaddr + images.PAGE),
    "address that is no page's": lambda a: a.send(vaddr=a.vaddr + 8),
    "pid of nobody": lambda a: a.send(pid=a.pid + 1),
    "no pages": lambda a: a.send(b"", pages=0),
    "more pages than were asked for": lambda a: a.send(a.data + nonsense(16 * images.PAGE),
                                                       pages=a.pages + 16),
    "more pages than there are": lambda a: a.send(pages=(1 << a.liar.count_bits()) - 1),
    "a hole": lambda a: a.send(b"", command=2, flags=0),
    "without bytes": lambda a: a.send(b"", flags=0),
    "an unknown command": lambda a: a.send(command=99),
    "a command of clients": lambda a: a.send(command=GET),
    "bytes after the last page": lambda a: a.send(a.data + nonsense(5)),
    "garbage": lambda a: a.send_and_end(nonsense(1000)),
    "the end in a page": lambda a: a.send_and_end(a.header() + a.data[:-1000]),
    "the end in a header": lambda a: a.send_and_end(a.header()[:13]),
    "the end after a header": lambda a: a.send_and_end(a.header()),
    "the end at once": lambda a: a.send_and_end(b""),
}


class Liar:
    def __init__(self, source, layout, address="127.0.0.1"):
        self.bytes = images.LazyBytes(source)
        self.layout = layout
        self.lie, self.told = None, 0
        self.gets, self.closes, self.connections = [], 0, 0
        self.misunderstood = []  # whatever a client said that it must not say
        self.listener = socket.create_server((address, 0))
        self.port = self.listener.getsockname()[1]
        self.open = []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.accept, daemon=True)]
        self.threads[0].start()

    def count_bits(self):
        return 32 if self.layout == 24 else 64

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections += 1
                self.open.append(connection)
            thread = threading.Thread(target=self.converse, args=[connection], daemon=True)
            self.threads.append(thread)
            thread.start()

    def converse(self, connection):
        header = HEADERS[self.layout]
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                said = connection.recv(header.size, socket.MSG_WAITALL)
                if len(said) < header.size:
                    break
                self.reply(connection, *header.unpack(said))
        except (End, OSError):
            pass
        with self.lock:
            if connection in self.open:
                self.open.remove(connection)
        connection.close()

    def reply(self, connection, command, pages, vaddr, pid):
        if command == CLOSE:
            self.closes += 1
            connection.sendall(struct.pack("=i", 0))
            return
        data = self.bytes.read(pid, vaddr, pages) if command == GET and pages else b""
        if not data:
            self.misunderstood.append((command, pages, vaddr, pid))
            raise End
        with self.lock:
            self.gets.append((pid, vaddr, pages))
            lie = self.lie
            self.told += lie is not None
        answer = Answer(self, connection, pid, vaddr, data)
        if lie:
            lie(answer)
        else:
            answer.send()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.lock:
            for connection in self.open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        for thread in self.threads:
            thread.join(timeout=10)
        self.bytes.close()
