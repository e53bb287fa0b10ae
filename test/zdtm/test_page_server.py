# SPDX-License-Identifier: GPL-2.0-or-later
"""criu-lazy-pages page-server --lazy-pages as its clients meet it: what it answers, what it
refuses, and that nobody can harm anybody else. Clients are sockets in our hands."""

import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

from harness import images, memory, paths, processes, wire

COMMAND = paths.BUILD / "criu-lazy-pages"
GOLDEN = paths.TOP / "test/zdtm/golden/v42-tree"
PAGE = 4096
BIG = 0x200000000000  # where tests put pages of their own

pytestmark = pytest.mark.skipif(paths.manager_name() != "ours", reason="about our own server")


class Server:
    """A page server over a directory of images, and the pages that it must have."""

    def __init__(self, directory, source=GOLDEN):
        self.images, self.work = directory / "images", directory / "work"
        shutil.copytree(source, self.images)
        self.work.mkdir()
        self.process = None
        self.port = None

    def start(self, *more, unix=False, **how):
        read, write = os.pipe()
        where = ["--address", "ps.sock"] if unix else ["--address", "127.0.0.1"]
        if unix:
            where = ["--address", "./ps.sock"]
        began = time.monotonic()
        self.process = subprocess.Popen(
            [*how.pop("command", [COMMAND, "page-server"]), "-D", self.images, "-W", self.work,
             "-v4", "-o", "page-server.log", "--lazy-pages", "--status-fd", str(write), *where,
             *map(str, more)], stdin=subprocess.DEVNULL, pass_fds=[write],
            **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **how})
        os.close(write)
        with os.fdopen(read, "rb") as f:
            told = f.read()
        self.took = time.monotonic() - began
        assert told == b"\0", f"it does not listen: {self.process.wait(timeout=10)}\n{self.log()}"
        found = re.search(r"Using (\d+) port", self.log())
        self.port = int(found.group(1)) if found else None
        return self

    def log(self):
        path = self.work / "page-server.log"
        return path.read_text() if path.exists() else ""

    def client(self, layout=32, **how):
        address = ("127.0.0.1", self.port) if self.port else str(self.work / "ps.sock")
        return wire.Client(address, layout, **how)

    def stop(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        return self.process.wait(timeout=20)

    def wait_log(self, text, timeout=10):
        processes.wait_for(lambda: text in self.log(), timeout, f"'{text}' in {self.log()}")

    def entries(self):
        """(pid, address, bytes) of all lazy pages, from the images themselves, page by page."""
        for path in sorted(self.images.glob("pagemap-[0-9]*.img")):
            head, *records = [images.numbers(r) for r in images.read_records(path)]
            with open(self.images / f"pages-{head[1]}.img", "rb") as f:
                for r in records:
                    for i in range(r.get(5) or r[2]):
                        data = f.read(PAGE)
                        if r[4] & images.LAZY:
                            yield int(path.stem.split("-")[1]), r[1] + i * PAGE, data

    def complaints(self):
        return [x for x in self.log().splitlines() if re.search(r"\b(Error|Warn)\b", x)]


@pytest.fixture
def server(tmp_path, nothing_left):
    s = Server(tmp_path)
    yield s
    if s.process and s.process.poll() is None:
        s.process.kill()
        s.process.wait()


# What it answers


@pytest.mark.parametrize("layout", [24, 32])
@pytest.mark.parametrize("forced", [False, True])
def test_every_page_comes_as_it_is_in_the_images(server, layout, forced):
    server.start(*(["--ps-layout", layout] if forced else []))
    wanted = list(server.entries())
    assert len(wanted) > 20
    with server.client(layout) as c:
        for pid, vaddr, data in wanted:
            assert c.get(pid, vaddr) == data
        assert c.say_close() == 0
    assert server.stop() == 0
    assert not server.complaints()
    assert f"served 1 clients, of which 1 have everything: {len(wanted)} pages" in server.log()
