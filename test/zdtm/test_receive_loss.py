# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps to our page server that come to nothing: it says so, nothing of them can be restored, the
source goes on; and whatever a sender says, it is refused for a reason."""

import os
import random
import socket
import subprocess

import pytest

from harness import paths, processes, wire
from harness.receiver import criu, dump_to, restore_eagerly, start_dump

PAGE = 4096
TASK, SHMEM = 12 << 8 | 1, 34 << 8 | 2

pytestmark = pytest.mark.skipif(paths.manager_name() != "ours", reason="about our own server")


def restorable(directory):
    """Names under which CRIU would look for memory."""
    return sorted(p.name for p in directory.glob("pa*.img"))


def failed(server, says, timeout=20):
    """It has ended with an error, in one line that says so, and left nothing to restore."""
    assert server.wait(timeout) == 1
    lines = server.complaints()
    assert len(lines) == 1 and "Error" in lines[0] and says in lines[0], lines
    assert "the dump is incomplete, nothing of it can be restored" in lines[0]
    assert not restorable(server.images)


def goes_on(case):
    """The source was not killed; it finds all its memory as it was."""
    assert case.process.poll() is None
    (case.home / "go").write_bytes(b"r")
    case._wait(lambda: case.result() is not None, 60, "the source to go on",
               gone=lambda: case.process.poll() is not None and case.result() is None)
    assert case.result() == "PASS", case.result()
    assert case.process.wait(timeout=20) == 0


@pytest.fixture
def big(case):
    c = case("content_big", 512)
    c.start()
    return c


def test_dump_killed_in_the_middle(big, receiver):
    server = receiver(big.images, big.work).start()
    dump = start_dump(big, server)
    server.wait_received(20 << 20)
    dump.kill()
    dump.wait(timeout=10)
    failed(server, "connection")
    goes_on(big)


def test_server_killed_in_the_middle_and_the_next_one_cleans_up(big, receiver):
    server = receiver(big.images, big.work).start()
    dump = start_dump(big, server)
    server.wait_received(20 << 20)
    server.kill()
    assert dump.wait(timeout=60) != 0
    assert not restorable(big.images) and list(big.images.glob("pages-*.incomplete"))
    server = receiver(big.images, big.work).start()
    dump_to(big, server)
    assert "removed 2 files of a dump that was never complete" in server.log()
    assert not list(big.images.glob("*.incomplete"))
    restore_eagerly(big)


def test_disk_full(big, receiver, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", small], check=True)
    try:
        server = receiver(small, big.work).start()
        dump = start_dump(big, server)
        assert dump.wait(timeout=60) != 0
        failed(server, "pages-65537.img.incomplete: 0x")
        assert "No space left on device" in server.complaints()[0]
        goes_on(big)
    finally:
        subprocess.run(["umount", small], check=True)


def test_dump_that_fails_for_another_reason_can_be_done_again(case, receiver):
    """It says CLOSE all the same: its pages are replaced by those of the next one."""
    c = case("content_big", 16)
    c.start()
    server = receiver(c.images, c.work).start()
    hook = c.work / "refuse"
    hook.write_text('#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != post-dump ]\n')
    hook.chmod(0o755)
    dump = start_dump(c, server, "--action-script", hook)
    assert dump.wait(timeout=60) != 0 and server.wait() == 0
    first = set(c.images.glob("pages-*.img"))
    assert first
    (c.home / "change").touch()
    processes.wait_for((c.home / "changed").exists, 20, "the program to change its memory")
    server = receiver(c.images, c.work).start()
    dump_to(c, server)
    assert "1 images of an earlier dump are replaced" in server.log()
    assert not first & set(c.images.glob("pages-*.img")), "old pages are still there"
    restore_eagerly(c)


@pytest.mark.parametrize("version", [None, "4.1"])
@pytest.mark.parametrize("what", ["pagemap-shmem-*", "pagemap-[0-9]*", "pages-*"])
def test_criu_does_not_restore_marked_files(case, receiver, what, version):
    c = case("content_shared")
    c.start()
    dump_to(c, receiver(c.images, c.work).start(), version=version)
    marked = list(c.images.glob(f"{what}.img"))
    for path in marked:
        path.rename(f"{path}.incomplete")
    assert marked
    assert criu(c, version, "restore", "-d").wait(timeout=60) != 0
    # Whom it had begun to restore is dead and ours, and still has its pid.
    processes.wait_for(lambda: not [p for p in processes.descendants() if not processes.reap(p)],
                       10, "the restored tree to be gone")
    for path in marked:
        os.rename(f"{path}.incomplete", path)
    restore_eagerly(c, version)


@pytest.fixture
def server(receiver, tmp_path):
    return receiver(tmp_path, tmp_path).start()


def opened(layout=32):
    return wire.header(layout, wire.OPEN2, id_=TASK)


def add(pages, vaddr, id_=TASK, flags=6, layout=32, command=wire.ADD_F):
    return wire.header(layout, command, pages, vaddr, id_, flags)


def start_of_a_dump(layout):
    return opened(layout) + add(2, 0x10000, layout=layout) + os.urandom(2 * PAGE) + \
        add(1, 0x30000, layout=layout)


@pytest.mark.parametrize("layout", [24, 32])
def test_cut_after_each_byte_of_the_first_headers(receiver, tmp_path, layout):
    said = start_of_a_dump(layout)
    first = [*range(2 * layout + 1), *range(len(said) - layout, len(said) + 1)]
    for n in first:
        server = receiver(tmp_path, tmp_path).start()
        with server.client() as c:
            c.send(said[:n])
            c.socket.shutdown(socket.SHUT_WR)
            while c.socket.recv(16):
                pass
        if n in (0, layout, len(said) - layout):
            failed(server, "the connection ended without CLOSE")
        elif n in (2 * layout, len(said)):
            failed(server, "the connection ended before all bytes had come")
        else:
            failed(server, "the connection ended within a header")


WRONG = {
    "add-before-open": (add(1, 0x1000), "task 12: ADD_F: 0x1000: no image is open"),
    "add-to-another": (opened() + add(1, 0x1000, SHMEM),
                       "shared memory 34: ADD_F: 0x1000: the open image is task 12"),
    "opened-twice": (opened() + wire.header(32, wire.OPEN2, id_=SHMEM) + opened(),
                     "task 12: OPEN2: opened twice"),
    "kind": (wire.header(32, wire.OPEN2, id_=12 << 8 | 3), "of an unknown kind"),
    "pid-0": (wire.header(32, wire.OPEN2, id_=1), "that of no pid"),
    "pid-large": (wire.header(32, wire.OPEN2, id_=1 << 40 | 1), "that of no pid"),
    "not-a-page": (opened() + add(1, 0x1001), "0x1001: not the address of a page"),
    "no-pages": (opened() + add(0, 0x1000), "0x1000: of no pages"),
    "wraps": (opened() + add(2**64 - 1, 0x1000), "reach past the end of memory"),
    "wraps-by-a-page": (opened() + add(2, 2**64 - PAGE), "reach past the end of memory"),
    "overlaps": (opened() + add(2, 0x1000) + bytes(2 * PAGE) + add(1, 0x2000),
                 "0x2000: below the end of the entry before (0x3000)"),
    "backwards": (opened() + add(1, 0x9000) + bytes(PAGE) + add(1, 0x1000), "below the end"),
    "no-bytes": (opened() + add(1, 0x1000, flags=2), "0x1000: comes without its bytes"),
    "no-flags": (opened() + add(1, 0x1000, flags=0), "neither here nor elsewhere"),
    "both": (opened() + add(1, 0x1000, flags=5), "both here and in the parent"),
    "new-flag": (opened() + add(1, 0x1000, flags=12), "flags 0xc of a later version"),
    "no-parent": (opened() + add(1, 0x1000, command=wire.HOLE, flags=0),
                  "HOLE: 0x1000: is to be in the parent, and there is none"),
    "get": (wire.header(32, wire.GET, 1, 0x7000, 12), "only with --lazy-pages"),
    "command": (opened() + wire.header(32, 99), "command 0x63: there is no such command"),
    "more-than-a-file": (opened() + add(2**51, 0), "more than a file can hold"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_makes_no_sense_is_refused(server, what):
    said, says = WRONG[what]
    with server.client() as c:
        peer = "%s:%d" % c.socket.getsockname()
        c.send(said)
        c.socket.shutdown(socket.SHUT_WR)
        failed(server, says)
    assert peer in server.complaints()[0]


def test_garbage(receiver, tmp_path, seed):
    r = random.Random(seed)
    for i in range(40):
        server = receiver(tmp_path, tmp_path).start()
        with server.client() as c:
            said = bytearray(start_of_a_dump(r.choice([24, 32])))
            for _ in range(r.randrange(1, 20)):
                said[r.randrange(100 if r.random() < .8 else len(said))] = r.randrange(256)
            try:
                c.send(said if i % 4 else r.randbytes(5000))
            except OSError:
                pass  # it has had enough of us
        failed(server, "")


def test_what_is_not_in_the_parent_is_missed(receiver, tmp_path):
    for name in "base", "top":
        (tmp_path / name).mkdir()
    os.symlink("../base", tmp_path / "top/parent")
    server = receiver(tmp_path / "base", tmp_path).start()
    with server.client() as c:
        c.send(opened() + add(2, 0x10000) + bytes(2 * PAGE))
        assert c.read(1) == b"\0"
        assert c.say_close() == 0
    assert server.wait() == 0
    server = receiver(tmp_path / "top", tmp_path).start()
    with server.client() as c:
        for id_, there in (TASK, 1), (TASK + 256, 0), (SHMEM, 0):
            c.send(wire.header(32, wire.PARENT, id_=id_))
            assert int.from_bytes(c.read(4), "little") == there
        c.send(opened() + add(3, 0x10000, command=wire.HOLE, flags=0))
        assert c.read(1) == b"\1"
        failed(server, "HOLE: parent/pagemap-12.img: entry 1: 0x12000: is to be in the parent, "
               "and is not there")


def test_second_server_over_the_same_directory_is_refused(receiver, tmp_path):
    first = receiver(tmp_path, tmp_path / "one")
    second = receiver(tmp_path, tmp_path / "two")
    for r in first, second:
        r.work.mkdir()
        r.start()
    with first.client() as one, second.client() as two:
        one.send(opened() + add(1, 0x1000) + bytes(PAGE))
        assert one.read(1) == b"\0"
        two.send(opened())
        assert second.wait() == 1
        assert "another page server is receiving into this images directory" in second.log()
        assert one.say_close() == 0
    assert first.wait() == 0
    assert restorable(tmp_path) == ["pagemap-12.img", "pages-65537.img"]


@pytest.mark.parametrize("command", [wire.CLOSE, wire.FORCE_CLOSE])
def test_force_close_ends_it_while_the_socket_is_held(receiver, tmp_path, command):
    near, far = socket.socketpair()
    with near, far:
        server = receiver(tmp_path, tmp_path).start(
            "--ps-socket", far.fileno(), at=(), fds=[far.fileno()])
        near.sendall(opened() + add(1, 0x1000) + bytes(PAGE) + wire.header(32, command))
        assert near.recv(1) == b"\0" and near.recv(4) == bytes(4)
        if command == wire.CLOSE:
            with pytest.raises(subprocess.TimeoutExpired):
                server.wait(1)
            near.shutdown(socket.SHUT_WR)
        assert server.wait(4) == 0
    assert restorable(tmp_path) == ["pagemap-12.img", "pages-65537.img"]
    assert not server.complaints()


def test_dedup_that_fails_harms_nobody(receiver, tmp_path):
    base, top = tmp_path / "base", tmp_path / "top"
    for d in base, top:
        d.mkdir()
    os.symlink("../base", top / "parent")
    for d, options in (base, []), (top, ["--auto-dedup"]):
        server = receiver(d, tmp_path).start(*options)
        with server.client() as c:
            c.send(opened() + add(1, 0x1000) + bytes(PAGE))
            c.read(1)
            assert c.say_close() == 0
        assert server.wait() == 0
        (base / "pages-65537.img").unlink(missing_ok=True)
    assert "Warn" in server.log() and "parent/pages-65537.img: No such file" in server.log()
    assert restorable(top) == ["pagemap-12.img", "pages-65537.img"]
