# SPDX-License-Identifier: GPL-2.0-or-later
"""Our page server beside stock CRIU's: the same bytes on the wire, and stock's own clients, of both
layouts, restore from it."""

import os
import shutil
import subprocess

import pytest

from harness import images, paths, processes, wire
from harness.page_server import PageServer

PAGE = 4096
# version, layout of its wire, images that it wrote
STOCK = {"4.2": (None, 32, "v42-tree"), "4.1": ("4.1", 24, "v41")}

pytestmark = pytest.mark.skipif(paths.manager_name() != "ours", reason="about our own server")


def questions(server):
    """GETs of each stretch of lazy pages: from each of its pages on, of several lengths."""
    for path in sorted(server.images.glob("pagemap-[0-9]*.img")):
        for record in images.read_records(path)[1:]:
            r = images.numbers(record)
            for first in range((r.get(5) or r[2]) if r[4] & images.LAZY else 0):
                for pages in (1, 2, 3, 64):
                    yield int(path.stem.split("-")[1]), r[1] + first * PAGE, pages


def answers(server, layout):
    """All that the server sends: the replies' headers and bytes, and the status at the end."""
    told = []
    with server.client(layout) as c:
        for question in questions(server):
            c.ask(*question)
            header = c.read(layout)
            told.append((question, header, c.read(wire.parse(layout, header)[2] * PAGE)))
        told.append(c.say_close())
    return told


@pytest.mark.parametrize("version", STOCK)
def test_replies_are_byte_for_byte_those_of_stock(tmp_path, nothing_left, version):
    which, layout, source = STOCK[version]
    told = []
    for command in ([paths.real_criu(which), "page-server"], None):
        directory = tmp_path / ("ours" if command is None else "stock")
        shutil.copytree(paths.TOP / "test/zdtm/golden" / source, directory / "images")
        (directory / "work").mkdir()
        server = PageServer(directory / "images", directory / "work")
        try:
            server.start(command=command)
            told.append(answers(server, layout))
            assert command or server.stop() == 0
        finally:
            server.kill()
    assert len(told[0]) > 20
    assert told[0] == told[1]


def dump(c, version):
    tree = processes.descendants(c.process.pid)
    command = c._command("dump", "-t", c.process.pid)
    command[0] = paths.real_criu(version)
    assert c._call(command, 60) == 0
    c.process.wait(timeout=10)
    # their pids must be free
    processes.wait_for(lambda: not [p for p in tree if not processes.reap(p) and
                                    processes.stat(p)], 10, "the dumped tree to be gone")


def restore_from(c, server, version, *more):
    """Stock's lazy-pages with our server, stock's restore; the program checks all its pages."""
    criu = paths.real_criu(version)
    read, write = os.pipe()
    with open(c.work / "manager.out", "wb") as out:
        c.manager = subprocess.Popen(
            [criu, "lazy-pages", "-D", c.images, "-W", c.work, "-v4", "-o", "lazy-pages.log",
             "--page-server", "--address", "127.0.0.1", "--port", str(server.port),
             "--status-fd", str(write), *map(str, more)], stdin=subprocess.DEVNULL, stdout=out,
            stderr=out,
            pass_fds=[write], start_new_session=True)
    os.close(write)
    with os.fdopen(read, "rb") as f:
        assert f.read(1) == b"\0"
    command = c.restore_command()
    command[0] = criu
    assert c._call(command, 60) == 0
    c.root = int((c.work / "restored.pid").read_text())
    c.wait_result()
    c.wait_exit()
    c.wait_manager()


@pytest.mark.parametrize("program", [
    "content_heap", "content_sparse", "content_stacks", "who_threads_random", "who_kernel_io",
    "tree_many"])
@pytest.mark.parametrize("version", STOCK)
def test_stock_client_restores_every_byte_from_our_server(case, version, program):
    which, layout, _ = STOCK[version]
    c = case(program)
    c.start()
    dump(c, which)
    server = PageServer(c.images, c.work)
    try:
        server.start("--once")
        restore_from(c, server, which)
        assert server.process.wait(timeout=10) == 0
    finally:
        server.kill()
    assert not server.complaints()
    assert f"has headers of {layout} bytes" in server.log()
    assert "of which 1 have everything" in server.log()
