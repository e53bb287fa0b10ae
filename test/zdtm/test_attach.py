# SPDX-License-Identifier: GPL-2.0-or-later
"""criu-lazy-pages page-server --attach, in front of a real criu dump --lazy-pages.

The source is given up when a destination holds everything, and at no other time; until then it is
frozen and whole, whatever happens to destinations; and whoever dies, it either goes on or has gone.
"""

import json
import pathlib
import random
import signal
import socket
import struct
import threading
import time

import pytest

from harness import paths, processes, wire
from harness.attach import Migration, criu_listens, free_port
from harness.client import Client, userfaultfd

HELD = 0x646c65682d6c6c61 # WIRE_HELD: the word of a destination that knows

pytestmark = pytest.mark.skipif(paths.manager_name() != "ours", reason="about our own server")


@pytest.fixture(autouse=True)
def pipes_for_stock():
    """Stock vmsplices what is lazy into pipes of up to 4 MiB."""
    path = pathlib.Path("/proc/sys/fs/pipe-max-size")
    old = path.read_text()
    path.write_text("4194304")
    yield
    path.write_text(old)


@pytest.fixture
def migration(case):
    made = []

    def make(program="content_moving", *arguments, **how):
        arguments = arguments or ((24,) if program == "content_moving" else ())
        extra = how.pop("dump", ())
        made.append(Migration(case, program, *arguments, **how))
        return made[-1].freeze(*extra)

    yield make
    for m in made:
        for p in (m.server, m.dump):
            if p and p.poll() is None:
                p.kill()
                p.wait()


# It ends well


@pytest.mark.parametrize("version", [None, "4.1"], ids=["4.2", "4.1"])
@pytest.mark.parametrize("stock", [True, False], ids=["to-stock", "to-ours"])
def test_a_destination_gets_every_byte_and_then_the_source_ends(migration, stock, version):
    m = migration(version=version).attach()
    d = m.destination(stock=stock)
    d.finish()
    m.completed()
    m.source.check_log()
    if not stock:
        d.case.check_log()


def test_every_lazy_page_is_what_the_frozen_memory_has(migration):
    m = migration("content_protected").attach()
    with m.client() as c:
        count = 0
        for pid, vaddr, data in m.pages():
            assert c.get(pid, vaddr) == data
            count += 1
        assert count > 3 * 2048 # the three areas of the program
        assert c.say_close() == 0
    m.completed()


def test_a_layout_that_is_forced_is_that_of_clients_and_not_of_the_dump(migration):
    m = migration().attach("--ps-layout", "24")
    assert m.layout == 32, "as the dump has it"
    m.layout = 24
    with m.client() as c:
        for pid, vaddr, data in list(m.pages())[:3]:
            assert c.get(pid, vaddr) == data
    assert m.command("abort")[0] == 0
    m.goes_on()


# A client's word


def test_a_close_of_stock_is_not_believed_before_every_page_was_sent(migration):
    """Stock says CLOSE also when its restore has failed: see the next test."""
    m = migration().attach()
    with m.client() as c:
        for pid, vaddr, count in list(m.ranges())[:5]:
            c.get(pid, vaddr)
        assert c.say_close() != 0
    assert m.is_frozen() and "only 5 were sent to it" in m.log()
    with m.client() as c:
        c.send(wire.header(m.layout, wire.CLOSE, vaddr=HELD, id_=HELD))
        assert c.read(4) == bytes(4)
    m.completed()


@pytest.mark.parametrize("stock", [True, False], ids=["stock", "ours"])
def test_a_restore_that_fails_leaves_the_source_alone(migration, stock):
    m = migration().attach()
    d = m.destination(stock=stock, restore=False)
    restore = Client(d.case.work)
    for pid in m.pids:
        restore.send_item(pid, userfaultfd())
    processes.wait_for(lambda: ": connected" in m.log(), 10, "the destination at the server")
    restore.close()
    d.case.wait_manager(expected=1)
    assert m.is_frozen()
    if stock:
        assert "Disconnect from the page server" in d.case.log(), "it has said CLOSE"
        assert "its restore has failed" in m.log()
    m.destination().finish()
    m.completed()


def test_who_knows_better_may_confirm_by_hand(migration):
    m = migration().attach()
    with m.client() as c:
        assert c.say_close() != 0
    assert m.command("confirm") == (0, f"the source of dump {m.dump.pid} has ended\n")
    m.completed()


# Destinations come and go


class SlowWay:
    """Between a destination and the server, so many bytes a second."""

    def __init__(self, port, rate):
        self.port, self.rate = port, rate
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                here, _ = self.listener.accept()
            except OSError:
                return
            try:
                there = socket.create_connection(("127.0.0.1", self.port))
            except OSError:
                here.close()
                continue
            for a, b in ((here, there), (there, here)):
                threading.Thread(target=self.carry, args=[a, b], daemon=True).start()

    def carry(self, a, b):
        try:
            while data := a.recv(65536):
                b.sendall(data)
                time.sleep(len(data) / self.rate)
        except OSError:
            pass
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()


def test_twenty_destinations_die_at_random_and_the_next_one_completes(migration, seed):
    m = migration().attach()
    way = SlowWay(m.port, 15e6) # two seconds for all of it
    rng = random.Random(seed)
    started = 0
    for _ in range(20):
        d = m.destination(stock=rng.random() < 0.5, port=way.address[1], restore=False)
        go = threading.Timer(rng.random() * 1.2, d.kill)
        go.start()
        try:
            d.case.restore(pidns=True)
            started += 1
        except AssertionError:
            pass # killed before it had restored anything
        go.join()
        d.kill()
        assert m.is_frozen() and m.source.result() is None, f"seed {seed}\n{m.log()}"
    way.close()
    assert started > 3
    m.destination().finish()
    m.completed()


def killed_root(m):
    """A destination of ours whose root is killed while most of its pages are owed."""
    way = SlowWay(m.port, 15e6)
    d = m.destination(stock=False, port=way.address[1])
    processes.kill(d.case.root)
    d.case.wait_exit(-signal.SIGKILL)
    d.case.wait_manager()
    way.close()
    d.case.check_log(["keeps the source .the restored root was killed while pages were owed"])
    assert "keeps the source" in d.case.log()
    assert m.is_frozen()


def test_a_root_that_is_killed_keeps_the_source_which_abort_resumes(migration):
    m = migration().attach()
    killed_root(m)
    assert m.command("abort")[0] == 0
    m.goes_on()


def test_a_root_that_is_killed_keeps_the_source_for_the_next_destination(migration):
    m = migration().attach()
    killed_root(m)
    m.destination(stock=False).finish()
    m.completed()


def test_two_destinations_at_once_get_the_same(migration):
    m = migration().attach()
    pages = list(m.pages())
    wrong = []

    def fetch():
        with m.client() as c:
            wrong.extend(p for p in pages if c.get(*p[:2]) != p[2])

    others = [threading.Thread(target=fetch) for _ in range(2)]
    for t in others:
        t.start()
    for t in others:
        t.join()
    assert not wrong
    with m.client() as idle:
        m.destination().finish()
        assert idle.is_closed()
    m.completed()


# It is called off


@pytest.mark.parametrize("how", ["port", "images", "server", "dump", "task", "signal"])
def test_abort_lets_the_source_go_on_and_refuses_every_client(migration, how):
    m = migration().attach()
    selector = {"port": ["--port", m.port, "--address", "127.0.0.1"],
                "images": ["-D", m.source.images], "server": [m.server.pid],
                "dump": [m.dump.pid], "task": [m.pids[1]], "signal": []}[how]
    with m.client() as c:
        pid, vaddr, _ = next(m.ranges())
        c.get(pid, vaddr)
        if how == "signal":
            m.server.terminate()
            m.server.wait(timeout=20)
        else:
            assert m.command("abort", *selector) == (
                0, f"the source of dump {m.dump.pid} runs again\n")
            assert all(m.tracer(p) == 0 for p in m.pids), "it is said when it is so"
        assert c.is_closed()
        assert m.refused()
    m.goes_on()
    assert m.command("abort")[0] == 1


@pytest.mark.parametrize("round_", range(6))
def test_abort_while_the_server_dies(migration, seed, round_):
    m = migration("content_moving", 1).attach()
    server, at = m.wait_server(), random.Random(seed + round_).random() * 0.01
    timer = threading.Timer(at, processes.kill, [server])
    timer.start()
    assert m.command("abort")[0] == 0
    timer.join()
    m.goes_on()


def test_status_shows_the_source_that_waits(migration):
    m = migration().attach()
    with m.client() as c:
        pid, vaddr, pages = max(m.ranges(), key=lambda r: r[2])
        c.get(pid, vaddr, pages)
        code, text = m.command("status", m.server.pid, "--json")
    told = json.loads(text)
    assert code == 0 and told["state"] == "attached" and told["dump"] == m.dump.pid
    assert told["address"] == f"127.0.0.1:{m.port}" and told["bytes"] == pages * 4096
    assert [(t["real_pid"], t["state"]) for t in told["tasks"]] == [(p, "frozen") for p in m.pids]
    assert m.command("abort")[0] == 0
    m.goes_on()


def test_abort_while_a_destination_drains(migration):
    m = migration().attach()
    way = SlowWay(m.port, 15e6)
    d = m.destination(stock=False, port=way.address[1])
    assert m.command("abort")[0] == 0
    time.sleep(0.3) # the destination finds nobody, and its program waits
    d.kill()
    way.close()
    m.goes_on()


def test_abort_of_nobody_and_of_one_of_two(migration):
    one, two = migration().attach(), migration().attach()
    assert one.command("abort", "--port", free_port())[0] == 1
    code, text = one.command("abort", "--address", "127.0.0.1")
    assert code == 2 and "say which" in text
    assert one.is_frozen() and two.is_frozen()
    assert one.command("abort", "--port", one.port)[0] == 0
    assert two.command("abort", "--port", two.port)[0] == 0
    one.goes_on()
    two.goes_on()


def test_abort_after_a_confirmation_is_refused(migration):
    m = migration().attach()
    processes.kill(m.dump.pid, signal.SIGSTOP) # so that there is a time after it
    with m.client() as c:
        c.send(wire.header(m.layout, wire.CLOSE, vaddr=HELD, id_=HELD))
        processes.wait_for(lambda: "is given up" in m.log(), 10, "the decision")
        code, text = m.command("abort")
        assert code == 3 and "given up" in text
        assert c.read(4) == bytes(4)
    processes.kill(m.dump.pid, signal.SIGCONT)
    m.completed()


# The server dies


def test_the_server_dies_while_a_destination_drains(migration, seed):
    m = migration("content_moving", 48).attach()
    way = SlowWay(m.port, 25e6)
    rng = random.Random(seed)
    d = m.destination(stock=False, port=way.address[1])
    dead = None
    for _ in range(6):
        time.sleep(rng.random() * 0.3)
        dead = m.wait_server(but=dead)
        processes.kill(dead)
    d.finish()
    m.completed()
    assert m.log().count("the next one takes over") == 6, m.log()
    way.close()


def say_held(m):
    """CLOSE of a destination that means it. Its status, or None: there was no answer."""
    try:
        with m.client() as c:
            c.send(wire.header(m.layout, wire.CLOSE, vaddr=HELD, id_=HELD))
            return struct.unpack("<i", c.read(4))[0]
    except (OSError, EOFError):
        return None


def killed_around_close(m, rng, victims):
    """Says CLOSE and kills at the same time. The status, or None."""
    at = rng.random() * 0.004
    timer = threading.Thread(target=lambda: (time.sleep(at), [processes.kill(p) for p in victims]))
    timer.start()
    status = say_held(m)
    timer.join()
    return status


@pytest.mark.parametrize("round_", range(8))
def test_the_server_dies_around_the_close(migration, seed, round_):
    m = migration("content_moving", 1).attach()
    status = killed_around_close(m, random.Random(seed + round_), [m.wait_server()])
    assert status in (0, None)
    # Without an answer it may not have been heard: then the next server hears it.
    if status is None and m.server.poll() is None:
        say_held(m)
    m.completed()


@pytest.mark.parametrize("round_", range(8))
def test_all_of_it_dies_around_the_close(migration, seed, round_):
    m = migration("content_moving", 1).attach()
    victims = [m.server.pid, m.wait_server()]
    status = killed_around_close(m, random.Random(seed + round_), victims)
    m.server.wait(timeout=10)
    m.server = None
    code = m.dump.wait(timeout=10)
    assert code == 0 or status is None, "who was told that the source has ended was told wrong"
    if code == 0:
        m.completed()
    else:
        m.goes_on(server_status=None)


def test_all_of_it_dies_before_any_confirmation(migration):
    m = migration().attach()
    with m.client() as c:
        pid, vaddr, _ = next(m.ranges())
        c.get(pid, vaddr)
        for p in (m.server.pid, m.wait_server()):
            processes.kill(p)
        m.server.wait(timeout=10)
        m.goes_on(server_status=None)


@pytest.mark.parametrize("then", ["completes", "aborts", "dies"])
def test_the_holder_dies_and_the_server_goes_on(migration, then):
    m = migration().attach()
    server = m.wait_server()
    m.server.kill()
    m.server.wait(timeout=10)
    processes.wait_for(lambda: "the holder died" in m.log(), 10, "a word about it")
    assert m.is_frozen()
    if then == "completes":
        m.destination().finish()
        assert processes.wait_for(lambda: [s for s in [processes.reap(server)] if s is not None],
                                  10, "the server to exit") == [0]
        m.server = None
        m.completed()
        return
    if then == "aborts":
        assert m.command("abort")[0] == 0
    else:
        processes.kill(server)
    m.goes_on(server_status=None)


# The dump dies


def test_the_dump_dies(migration):
    m = migration().attach()
    with m.client() as c:
        pid, vaddr, _ = next(m.ranges())
        c.get(pid, vaddr)
        m.dump.kill()
        m.dump.wait(timeout=10)
        assert c.is_closed()
    assert m.refused()
    m.goes_on(server_status=1)
    assert f"Error page-server: dump {m.dump.pid} has ended" in m.log()


def test_no_byte_is_given_out_that_was_written_after_the_dump_died(migration, seed):
    """The server is stopped while it happens, so that it finds requests and the news together."""
    m = migration("event_writes_on").attach()
    pages = list(m.pages())
    server = m.wait_server()
    with m.client() as c:
        asked = random.Random(seed).choices(pages, k=200)
        assert c.get(*asked[0][:2]) == asked[0][2]
        processes.kill(server, signal.SIGSTOP)
        for pid, vaddr, _ in asked:
            c.ask(pid, vaddr)
        m.dump.kill()
        m.dump.wait(timeout=10)
        time.sleep(0.05) # the program has written to all of its pages, and again
        processes.kill(server, signal.SIGCONT)
        with pytest.raises((EOFError, ConnectionResetError)):
            for pid, vaddr, data in asked:
                assert c.reply() == (vaddr, pid, data)
    m.goes_on(server_status=1)


# To what it cannot be attached


def attach_fails(m, text, *extra, **changes):
    """The server does not start, says why, and changes nothing."""
    for name, value in changes.items():
        setattr(m, name, value)
    out = m.source.work / "manager.out"
    out.unlink(missing_ok=True)
    process, listens = criu_listens(m.attach_command(*extra), out, m.source.dir)
    assert not listens and process.wait(timeout=20) == 1
    assert text in m.log(), m.log()
    assert m.is_frozen()


def test_attach_to_nobody_and_to_somebody_else(migration):
    m = migration()
    right = m.dump_port
    attach_fails(m, "nobody listens there", dump_port=free_port())
    with socket.create_server(("127.0.0.1", 0)) as s:
        attach_fails(m, "it is no criu dump --lazy-pages", dump_port=s.getsockname()[1])
    m.dump_port = right
    m.attach()
    assert m.command("abort")[0] == 0
    m.goes_on()


def test_attach_to_a_dump_with_tls(migration):
    m = migration(dump=["--tls"])
    attach_fails(m, "leave that to the server")
    m.dump.kill()
    m.goes_on(server_status=None)


def test_attach_with_other_images(migration):
    m, other = migration(), migration()
    images, m.source.images = m.source.images, other.source.images
    attach_fails(m, "are these its images?")
    m.source.images = images
    for x in (m, other):
        x.attach()
        assert x.command("abort")[0] == 0
        x.goes_on()


def test_a_second_attach_is_refused(migration):
    m = migration().attach()
    first, port = m.server, m.port
    attach_fails(m, "a criu dump takes only one", port=free_port())
    m.server, m.port = first, port
    assert m.command("abort")[0] == 0
    m.goes_on()


def test_a_pidfile_that_is_there_already_is_seen_before_the_dump_is_touched(migration):
    m = migration()
    (m.source.work / "pid").write_text("1", encoding="utf-8")
    attach_fails(m, "pidfile pid is there already", "--daemon", "--pidfile", "pid")
    m.attach()
    assert m.command("abort")[0] == 0
    m.goes_on()
