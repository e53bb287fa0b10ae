# SPDX-License-Identifier: GPL-2.0-or-later
"""criu-lazy-pages page-server --lazy-pages from its start to its end: when it listens, where, what
it needs, and what ends it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time

import pytest

from harness import images, paths, processes, wire
from test_page_server import BIG, COMMAND, PAGE, rss, server, with_big_area

__all__ = ["server"]  # the fixture

pytestmark = pytest.mark.skipif(paths.manager_name() != "ours", reason="about our own server")


def test_8_gib_of_images_are_served_at_once_and_take_no_memory(server):
    pid = next(server.entries())[0]
    count = (8 << 30) // PAGE
    page = b"last".ljust(PAGE, b"!")
    last = BIG + (count - 1) * PAGE
    images.add_mapping(server.images, pid, BIG, BIG + (8 << 30))
    images.insert_pages(server.images, pid, [(BIG, count - 1), (last, 1)], [(last, page)])
    times = []
    for _ in range(5):
        server.start()
        times.append(server.took)
        with server.client() as c:
            assert c.get(pid, last) == page
            assert c.get(pid, BIG, 64 << 8) == bytes(64 << 20)
        assert rss(server.process.pid) <= 64 << 20
        assert server.stop() == 0
    # the best: others may have work on this machine
    assert min(times) <= 0.05, times


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_with_status_0_and_it_says_what_it_did(server, sig):
    pid, data = with_big_area(server)
    server.start("--json", "sum.json", "--display-stats", stdout=subprocess.PIPE)
    with server.client() as c, server.client() as deaf:
        assert c.get(pid, BIG, 512) == data[:512 * PAGE]
        deaf.ask(pid, BIG, 3000)
        time.sleep(0.1)
        assert server.stop(sig) == 0
    assert "served 2 clients" in server.process.stdout.read().decode()
    server.process.stdout.close()
    told = json.loads((server.work / "sum.json").read_text())
    assert told["clients"] == 2 and told["confirmed"] == 0
    assert told["bytes"] == told["pages"] * PAGE == (512 + 3000) * PAGE


def test_once_ends_when_a_client_has_everything_and_knows_it(server):
    pid, vaddr, data = next(server.entries())
    server.start("--once")
    with server.client() as other:
        for _ in range(3):
            with server.client() as c:
                assert c.get(pid, vaddr) == data  # and goes without a word
        with server.client() as c:
            assert c.get(pid, vaddr) == data
            assert c.say_close() == 0
            assert other.get(pid, vaddr) == data
        assert server.process.wait(timeout=10) == 0
        assert other.is_closed()
    assert not server.complaints()


@pytest.mark.parametrize("more,stays", [([], False), (["--no-once"], True)])
def test_called_as_criu_it_ends_with_its_client_unless_told_not_to(server, more, stays):
    pid, vaddr, data = next(server.entries())
    link = server.work / "criu"
    link.symlink_to(COMMAND)
    server.start(*more, command=[link, "page-server"])
    with server.client() as c:
        assert c.get(pid, vaddr) == data
        assert c.say_close() == 0
    if stays:
        time.sleep(0.3)
        assert server.process.poll() is None
        server.process.terminate()
    assert server.process.wait(timeout=10) == 0


def test_options_of_receiving_are_noted_and_no_error(server):
    pid, vaddr, data = next(server.entries())
    server.start("--auto-dedup", "--track-mem")
    with server.client() as c:
        assert c.get(pid, vaddr) == data
    assert "--auto-dedup has no effect" in server.log() and "--track-mem has no" in server.log()
    assert not server.complaints()
    assert server.stop() == 0


def test_without_once_it_stays(server):
    pid, vaddr, data = next(server.entries())
    server.start()
    for _ in range(3):
        with server.client() as c:
            assert c.get(pid, vaddr) == data
            assert c.say_close() == 0
    assert server.process.poll() is None
    assert server.stop() == 0


def test_two_servers_do_not_share_a_port(server, tmp_path):
    server.start()
    done = subprocess.run([COMMAND, "page-server", "--lazy-pages", "-D", server.images, "-W",
                           tmp_path, "--address", "127.0.0.1", "--port", str(server.port)],
                          text=True, capture_output=True, timeout=20, check=False)
    assert done.returncode == 1
    assert f"127.0.0.1:{server.port}" in done.stderr and "in use" in done.stderr


@pytest.mark.parametrize("address", ["no.such.host.invalid", "192.0.2.77", "/no/such/dir/s"])
def test_address_that_cannot_be_had_is_named(server, address):
    done = subprocess.run([COMMAND, "page-server", "--lazy-pages", "-D", server.images,
                           "--address", address], text=True, capture_output=True, timeout=30,
                          check=False)
    assert done.returncode == 1
    assert done.stderr.count("Error") == 1 and address in done.stderr


@pytest.mark.parametrize("address,warns", [("127.0.0.1", 0), ("127.1.2.3", 0), ("::1", 0),
                                           ("localhost", 0), ("0.0.0.0", 1), (None, 1)])
def test_plain_text_for_everybody_is_a_warning(server, address, warns):
    server.start(address=address)
    assert len(server.complaints()) == warns
    assert server.stop() == 0


def test_daemon_has_its_pid_in_the_file_and_serves_when_the_command_returns(server):
    pid, vaddr, data = next(server.entries())
    server.start("--daemon", "--pidfile", "the.pid")
    assert server.process.wait(timeout=10) == 0
    daemon = int((server.work / "the.pid").read_text())
    with server.client() as c:
        assert c.get(pid, vaddr) == data
    os.kill(daemon, signal.SIGTERM)
    processes.wait_for(lambda: processes.reap(daemon) == 0, 10, "the daemon to end with 0")


def test_daemon_that_cannot_start_says_why(server):
    (server.images / "pstree.img").unlink()
    done = subprocess.run([COMMAND, "page-server", "--lazy-pages", "-D", server.images, "-d",
                           "-o", "ps.log"], text=True, capture_output=True, timeout=30, check=False)
    assert done.returncode == 1 and "pstree.img" in done.stderr


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1, 2]])
def test_closed_standard_descriptors_are_not_taken_by_a_socket(server, closed):
    pid, vaddr, data = next(server.entries())

    def close():
        for fd in closed:
            os.close(fd)
    server.start("--display-stats", preexec_fn=close)
    with server.client() as c:
        assert c.get(pid, vaddr) == data
        for fd in closed:
            assert os.readlink(f"/proc/{server.process.pid}/fd/{fd}") == "/dev/null"
    assert server.stop() == 0


@pytest.mark.parametrize("confirm", [True, False])
def test_ps_socket_is_the_only_client(server, confirm):
    pid, vaddr, data = next(server.entries())
    ours, theirs = socket.socketpair()
    server.process = subprocess.Popen(
        [COMMAND, "page-server", "--lazy-pages", "-D", server.images, "-W", server.work, "-v4",
         "-o", "page-server.log", "--ps-socket", str(theirs.fileno())],
        pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    theirs.close()
    c = wire.Client.__new__(wire.Client)
    c.socket, c.layout = ours, 32
    ours.settimeout(10)
    assert c.get(pid, vaddr) == data
    if confirm:
        assert c.say_close() == 0
    c.close()
    assert server.process.wait(timeout=10) == (0 if confirm else 1)


def test_pages_that_are_still_at_the_source_are_refused(server):
    shutil.rmtree(server.images)
    shutil.copytree(paths.TOP / "test/zdtm/golden/v42-lazy", server.images)
    done = subprocess.run([COMMAND, "page-server", "--lazy-pages", "-D", server.images],
                          text=True, capture_output=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "still at the source" in done.stderr
