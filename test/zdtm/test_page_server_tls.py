# SPDX-License-Identifier: GPL-2.0-or-later
"""Our page server over TLS: who is let in, and stock's client behind it."""

import shutil
import ssl
import subprocess
import time

import pytest

import test_page_server_stock as stock
from harness import paths, wire
from harness.page_server import PageServer

GOLDEN = paths.TOP / "test/zdtm/golden/v42-tree"

pytestmark = pytest.mark.skipif(paths.manager_name() != "ours", reason="about our own server")


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pki")
    subprocess.run([paths.TOP / "test/zdtm/make-pki", directory], check=True, timeout=120,
                   capture_output=True)
    return directory


def options(pki, name):
    return ["--tls", "--tls-cacert", pki / "ca.pem", "--tls-cacrl", pki / "crl.pem",
            "--tls-cert", pki / f"{name}.pem", "--tls-key", pki / f"{name}-key.pem"]


@pytest.fixture
def server(tmp_path, nothing_left, pki):
    shutil.copytree(GOLDEN, tmp_path / "images")
    (tmp_path / "work").mkdir()
    s = PageServer(tmp_path / "images", tmp_path / "work")
    s.start(*options(pki, "server"))
    yield s
    s.kill()


def connect(server, pki, name):
    """A client with that certificate (None: without any)."""
    context = ssl.create_default_context(cafile=pki / "ca.pem")
    if name:
        context.load_cert_chain(pki / f"{name}.pem", pki / f"{name}-key.pem")
    c = server.client()
    c.socket = context.wrap_socket(c.socket, server_hostname="127.0.0.1")
    return c


def test_every_page_comes_through_tls(server, pki):
    wanted = list(server.entries())
    with connect(server, pki, "client") as c:
        for pid, vaddr, data in wanted:
            assert c.get(pid, vaddr) == data
        assert c.say_close() == 0
        c.socket.unwrap().close()
    assert server.stop() == 0
    assert not server.complaints()


def test_requests_that_come_in_one_record_are_all_answered(server, pki):
    wanted = list(server.entries())[:40]
    with connect(server, pki, "client") as c:
        c.send(b"".join(wire.header(32, wire.GET, 1, vaddr, pid) for pid, vaddr, _ in wanted))
        for pid, vaddr, data in wanted:
            assert c.reply() == (vaddr, pid, data)


@pytest.mark.parametrize("name", [None, "stranger", "revoked", "expired"])
def test_client_without_a_good_certificate_gets_nothing(server, pki, name):
    pid, vaddr, data = next(server.entries())
    with connect(server, pki, "client") as good:
        with pytest.raises((ssl.SSLError, EOFError, ConnectionError)):
            with connect(server, pki, name) as c:
                c.get(pid, vaddr)
        assert good.get(pid, vaddr) == data
    assert len(server.complaints()) == 1
    assert server.stop() == 0


def test_plain_text_to_a_tls_server_gets_nothing(server, pki):
    pid, vaddr, data = next(server.entries())
    with server.client() as c:
        c.ask(pid, vaddr)
        answer = b""
        c.socket.settimeout(10)
        try:
            while piece := c.socket.recv(65536):
                answer += piece
        except ConnectionError:
            pass
        assert data[:64] not in answer and len(answer) < 100
    with connect(server, pki, "client") as good:
        assert good.get(pid, vaddr) == data
    assert len(server.complaints()) == 1


def test_handshake_that_stands_still_for_30_seconds_ends_its_connection(server, pki):
    pid, vaddr, data = next(server.entries())
    with server.client() as silent, server.client() as c, connect(server, pki, "client") as idle:
        began = time.monotonic()
        c.send(b"\x16\x03\x01")
        assert idle.get(pid, vaddr) == data
        assert silent.is_closed(timeout=60) and c.is_closed(timeout=60)
        assert 29 < time.monotonic() - began < 33
        assert idle.get(pid, vaddr) == data
    assert len([x for x in server.complaints() if "handshake" in x]) == 2


@pytest.mark.parametrize("version", stock.STOCK)
def test_stock_client_restores_every_byte_over_tls(case, pki, version):
    which = stock.STOCK[version][0]
    c = case("content_heap")
    c.start()
    stock.dump(c, which)
    server = PageServer(c.images, c.work)
    try:
        server.start("--once", *options(pki, "server"))
        stock.restore_from(c, server, which, *options(pki, "client"))
        assert server.process.wait(timeout=10) == 0
    finally:
        server.kill()
    assert not server.complaints()
