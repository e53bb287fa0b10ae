# SPDX-License-Identifier: GPL-2.0-or-later
"""A page server over a directory of images, ours unless another command is given.

    s = PageServer(images, work).start("--once")
    s.port, s.log(), s.complaints(), s.entries()
    with s.client(layout=24) as c:      # harness/wire.py
        ...
    assert s.stop() == 0
"""

import os
import re
import signal
import subprocess
import time

from . import images, paths, processes, wire

PAGE = 4096


class PageServer:
    def __init__(self, images_dir, work):
        self.images, self.work = images_dir, work
        self.process = None  # Popen
        self.port = None     # where it listens; None: a unix socket, ps.sock in the work directory
        self.took = None     # seconds until it listened

    def start(self, *more, command=None, address="127.0.0.1", **how):
        """Returns when it listens. address: None leaves it to the server."""
        read, write = os.pipe()
        words = [*(command or [paths.BUILD / "criu-lazy-pages", "page-server"]),
                 "-D", self.images, "-W", self.work, "-v4", "-o", "page-server.log",
                 "--lazy-pages", "--status-fd", write, *more]
        if address:
            words += ["--address", address]
        began = time.monotonic()
        self.process = subprocess.Popen(
            [str(w) for w in words], stdin=subprocess.DEVNULL, pass_fds=[write],
            **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **how})
        os.close(write)
        with os.fdopen(read, "rb") as f:
            told = f.read(1)
        self.took = time.monotonic() - began
        assert told == b"\0", f"it does not listen: {self.process.wait(timeout=10)}\n{self.log()}"
        found = re.search(r"Using (\d+) port", self.log())
        self.port = int(found.group(1)) if found else None
        return self

    def log(self):
        path = self.work / "page-server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def client(self, layout=32, **how):
        address = ("127.0.0.1", self.port) if self.port else str(self.work / "ps.sock")
        return wire.Client(address, layout, **how)

    def stop(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        return self.process.wait(timeout=20)

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def wait_log(self, text, timeout=10):
        processes.wait_for(lambda: text in self.log(), timeout, f"'{text}' in {self.log()}")

    def complaints(self):
        return [x for x in self.log().splitlines() if re.search(r"\b(Error|Warn)\b", x)]

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
