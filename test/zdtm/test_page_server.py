# SPDX-License-Identifier: GPL-2.0-or-later
"""criu-lazy-pages page-server --lazy-pages as its clients meet it: what it answers, what it
refuses, and that nobody can harm anybody else. Clients are sockets in our hands."""

import os
import random
import resource
import shutil
import socket
import threading
import time

import pytest

from harness import images, paths, processes, wire
from harness.page_server import PageServer

COMMAND = paths.BUILD / "criu-lazy-pages"
GOLDEN = paths.TOP / "test/zdtm/golden/v42-tree"
PAGE = 4096
BIG = 0x200000000000  # where tests put pages of their own

pytestmark = pytest.mark.skipif(paths.manager_name() != "ours", reason="about our own server")


@pytest.fixture
def server(tmp_path, nothing_left):
    shutil.copytree(GOLDEN, tmp_path / "images")
    (tmp_path / "work").mkdir()
    s = PageServer(tmp_path / "images", tmp_path / "work")
    yield s
    s.kill()


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


def runs(server, pid=None):
    """Stretches of lazy pages that follow each other: (pid, address, pages)."""
    found = []
    for p, vaddr, _ in server.entries():
        if found and found[-1][0] == p and found[-1][1] + found[-1][2] * PAGE == vaddr:
            found[-1][2] += 1
        else:
            found.append([p, vaddr, 1])
    return [tuple(f) for f in found if pid in (None, f[0])]


def with_big_area(server, pages=3000, seed=7):
    """Adds an area of that many pages at BIG to the first task: (pid, bytes of page i)."""
    pid = next(server.entries())[0]
    data = random.Random(seed).randbytes(pages * PAGE)
    images.add_mapping(server.images, pid, BIG, BIG + len(data))
    images.insert_pages(server.images, pid, [(BIG, pages)], [(BIG, data)])
    return pid, data


@pytest.mark.parametrize("pages", [1, 2, 8, 9, 16, 17, 64, 1000, 3000])
def test_many_pages_at_once_are_the_same_bytes(server, pages):
    pid, data = with_big_area(server)
    server.start()
    with server.client() as c:
        for first in (0, 1, 3000 - pages):
            first = min(first, 3000 - pages)
            at = slice(first * PAGE, (first + pages) * PAGE)
            assert c.get(pid, BIG + first * PAGE, pages) == data[at]


def test_reply_ends_where_the_images_end_and_is_never_empty(server):
    server.start()
    with server.client() as c:
        for pid, vaddr, pages in runs(server):
            c.ask(pid, vaddr, 1 << 30)
            got = c.reply()
            assert got[:2] == (vaddr, pid) and 1 <= len(got[2]) // PAGE <= pages


def test_requests_that_come_together_are_answered_in_their_order(server):
    pid, data = with_big_area(server)
    server.start()
    order = [random.Random(1).randrange(3000) for _ in range(500)]
    with server.client() as c:
        c.send(b"".join(wire.header(32, wire.GET, 1, BIG + i * PAGE, pid) for i in order))
        for i in order:
            assert c.reply() == (BIG + i * PAGE, pid, data[i * PAGE:(i + 1) * PAGE])
        assert c.say_close() == 0


@pytest.mark.parametrize("layout", [24, 32])
@pytest.mark.parametrize("command", [wire.CLOSE, wire.FORCE_CLOSE])
def test_close_that_comes_first_is_answered_in_either_layout(server, layout, command):
    server.start()
    with server.client(layout) as c:
        assert c.say_close(command) == 0
    with server.client(layout) as c:
        assert c.say_close(command) == 0
        c.socket.shutdown(socket.SHUT_WR)
        assert c.is_closed()
    assert server.stop() == 0
    assert not server.complaints()


def test_layout_is_each_clients_own(server):
    pid, vaddr, data = next(server.entries())
    server.start()
    with server.client(24) as old, server.client(32) as new:
        for _ in range(3):
            assert old.get(pid, vaddr) == new.get(pid, vaddr) == data


def test_headers_may_come_byte_by_byte(server):
    pid, vaddr, data = next(server.entries())
    server.start()
    for layout in (24, 32):
        with server.client(layout) as c:
            c.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in wire.header(layout, wire.GET, 1, vaddr, pid):
                c.send(bytes([byte]))
                time.sleep(0.001)
            assert c.reply()[2] == data


def test_unix_socket_is_made_and_removed(server):
    pid, vaddr, data = next(server.entries())
    server.start(address="./ps.sock")
    assert (server.work / "ps.sock").is_socket()
    with server.client() as c:
        assert c.get(pid, vaddr) == data
    assert server.stop() == 0
    assert not (server.work / "ps.sock").exists()


# What it refuses


def unknown_pid(pid, vaddr):
    return wire.GET, 1, vaddr, 99999


def huge_pid(pid, vaddr):
    return wire.GET, 1, vaddr, pid + (1 << 32)


def address_not_held(pid, vaddr):
    return wire.GET, 1, 0x1000, pid


def page_that_is_not_lazy(pid, vaddr):
    return wire.GET, 1, 4198400, pid


def address_in_a_page(pid, vaddr):
    return wire.GET, 1, vaddr + 8, pid


def all_pages(pid, vaddr):
    return wire.GET, (1 << 64) - 1, vaddr, pid


def last_address(pid, vaddr):
    return wire.GET, 1, (1 << 64) - PAGE, pid


def no_pages(pid, vaddr):
    return wire.GET, 0, vaddr, pid


def dump(pid, vaddr):
    return wire.OPEN2, 0, 0, pid << 8 | 1


def unknown_command(pid, vaddr):
    return 77, 1, vaddr, pid


LIES = [unknown_pid, huge_pid, address_not_held, page_that_is_not_lazy, address_in_a_page,
        all_pages, last_address, no_pages, dump, unknown_command]


@pytest.mark.parametrize("lie", LIES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("first", [True, False], ids=["at-once", "later"])
def test_who_asks_for_nonsense_is_disconnected_and_nobody_else(server, lie, first):
    pid, vaddr, data = next(server.entries())
    server.start()
    with server.client() as other, server.client() as c:
        assert other.get(pid, vaddr) == data
        if not first:
            assert c.get(pid, vaddr) == data
        c.send(wire.header(32, *lie(pid, vaddr)))
        assert c.is_closed()
        assert other.get(pid, vaddr) == data
        me = ":".join(map(str, c.socket.getsockname()))
    told = server.complaints()
    assert len(told) == 1 and f"{me}: " in told[0]
    if lie not in (dump, unknown_command):
        _, _, asked, who = lie(pid, vaddr)
        assert f"at {asked:#x} of pid {who}: " in told[0]
    assert server.stop() == 0


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 32, b"\xff" * 64,
                                  b"SSH-2.0-x\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"],
                         ids=["http", "zeros", "ones", "ssh", "tls"])
def test_garbage_is_refused_at_its_first_bytes(server, data):
    server.start()
    with server.client() as c:
        c.send(data)
        assert c.is_closed(timeout=5)
    assert len(server.complaints()) == 1


@pytest.mark.parametrize("layout", [24, 32])
def test_header_cut_at_any_byte_hurts_nobody(server, layout):
    pid, vaddr, data = next(server.entries())
    server.start("--ps-layout", layout)
    get = wire.header(layout, wire.GET, 1, vaddr, pid)
    with server.client(layout) as other:
        for cut in range(layout):
            with server.client(layout) as c:
                c.send(get + get[:cut])
                assert c.reply()[2] == data
            assert other.get(pid, vaddr) == data
    processes.wait_for(lambda: len(server.complaints()) == layout - 1, 10, "a line for each cut")
    assert server.stop() == 0


def test_random_bytes_never_end_the_server(server, seed):
    pid, vaddr, data = next(server.entries())
    server.start()
    r = random.Random(seed)
    for _ in range(300):
        with server.client() as c:
            good = wire.header(32, wire.GET, 1, vaddr, pid)
            bad = bytearray(good * 3)
            for _ in range(r.randrange(1, 6)):
                bad[r.randrange(len(bad))] = r.randrange(256)
            try:
                c.send(bytes(bad))
            except OSError:
                pass
    with server.client() as c:
        assert c.get(pid, vaddr) == data, f"seed {seed}"
    assert server.stop() == 0, f"seed {seed}"


def test_pages_file_cut_short_while_it_serves_gives_no_wrong_byte(server):
    pid, data = with_big_area(server)
    server.start()
    pages = next(p for p in server.images.glob("pages-*.img")
                 if p.stat().st_size > 3000 * PAGE)
    with server.client() as c, server.client() as other:
        assert c.get(pid, BIG, 2) == data[:2 * PAGE]
        os.truncate(pages, PAGE)
        for client, count in ((c, 1), (other, 2000)):
            client.ask(pid, BIG + 100 * PAGE, count)
            got = client.socket.recv(1 << 20)
            assert len(got) <= 32 and client.is_closed()
    assert all("cut short" in x for x in server.complaints())
    assert server.stop() == 0


# Slow ones, and many


def time_of_get(client, pid, vaddr, data):
    began = time.monotonic()
    assert client.get(pid, vaddr) == data
    return time.monotonic() - began


def rss(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(next(x for x in f if x.startswith("VmRSS")).split()[1]) << 10


def test_those_who_dawdle_in_a_header_or_never_read_hold_up_nobody(server):
    pid, data = with_big_area(server)
    server.start("--threads", "1")
    slow, deaf = [server.client() for _ in range(100)], [server.client() for _ in range(100)]
    for c in slow:
        c.send(wire.header(32, wire.GET, 1, BIG, pid)[:20])
    for c in deaf:
        for _ in range(10):
            c.ask(pid, BIG, 3000)
    with server.client() as c:
        worst = max(time_of_get(c, pid, BIG + i * PAGE, data[i * PAGE:(i + 1) * PAGE])
                    for i in range(300))
        # the deaf ones are at rest by now: what their sockets take, they have
        assert rss(server.process.pid) < 64 << 20
    assert worst < 0.1
    for c in slow + deaf:
        c.close()
    assert server.stop() == 0


def test_header_that_is_not_finished_in_30_seconds_ends_its_connection(server):
    pid, vaddr, data = next(server.entries())
    server.start()
    slow = {layout: server.client(layout) for layout in (24, 32)}
    with server.client(24) as idle, server.client(32) as quiet:
        assert idle.get(pid, vaddr) == data
        began = time.monotonic()
        for i in range(23):
            for layout, c in slow.items():
                c.send(wire.header(layout, wire.GET, 1, vaddr, pid)[i:i + 1])
            time.sleep(0.5)
        for c in slow.values():
            assert c.is_closed(timeout=60)
            c.close()
        assert 29 < time.monotonic() - began < 33
        assert idle.get(pid, vaddr) == quiet.get(pid, vaddr) == data
    assert len(server.complaints()) == 2
    assert all("30 seconds" in x for x in server.complaints())
    assert server.stop() == 0


def test_64_clients_at_once_each_get_their_bytes(server, seed):
    pid, data = with_big_area(server)
    server.start()
    failed, done = [], []

    def client(number):
        r = random.Random(seed + number)
        try:
            with server.client(r.choice([24, 32]), timeout=60) as c:
                for _ in range(20):
                    count = r.choice([1, 1, 5, 40, 700])
                    first = r.randrange(3000 - count)
                    assert c.get(pid, BIG + first * PAGE, count) == \
                        data[first * PAGE:(first + count) * PAGE]
                assert c.say_close() == 0
            done.append(number)
        except BaseException as e:
            failed.append((number, repr(e)))

    threads = [threading.Thread(target=client, args=[i]) for i in range(64)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed and len(done) == 64, f"seed {seed}: {failed}"
    assert server.stop() == 0
    assert "served 64 clients, of which 64 have everything" in server.log()
    assert not server.complaints()


def test_clients_that_ask_for_much_get_about_the_same_and_one_that_asks_for_little_comes_first(
        server):
    pid, data = with_big_area(server)
    server.start("--threads", "1")
    stop, got = threading.Event(), [0] * 6

    def reader(number):
        with server.client(timeout=60) as c:
            while not stop.is_set():
                c.ask(pid, BIG, 3000)
                got[number] += len(c.reply()[2])

    threads = [threading.Thread(target=reader, args=[i]) for i in range(len(got))]
    for t in threads:
        t.start()
    time.sleep(0.2)
    with server.client() as c:
        times = sorted(time_of_get(c, pid, BIG, data[:PAGE]) for _ in range(100))
    time.sleep(1)
    stop.set()
    for t in threads:
        t.join()
    assert min(got) > sum(got) / len(got) / 3, got
    assert times[50] < 0.05, times
    assert server.stop() == 0


def test_without_descriptors_new_clients_wait_and_are_served_later(server):
    pid, vaddr, data = next(server.entries())

    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    server.start(preexec_fn=few)
    clients = [server.client(timeout=5) for _ in range(60)]
    assert clients[0].get(pid, vaddr) == data
    server.wait_log("new connections wait")
    for c in clients[:40]:
        c.close()
    for c in clients[40:]:
        assert c.get(pid, vaddr) == data
        c.close()
    assert len([x for x in server.complaints() if "wait" in x]) == 1
    assert server.stop() == 0
