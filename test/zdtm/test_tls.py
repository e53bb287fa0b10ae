# SPDX-License-Identifier: GPL-2.0-or-later
"""TLS between ours and stock CRIU, in every pairing and direction, and who is not let in.

A stock server compares its client's name with its own --address unless told not to, so here it is
told. Stock with stock is the control.
"""

import random
import time

import pytest

from harness import paths, processes
from harness import remote as remotes
from harness.attach import Migration
from harness.pki import Pki, secured

SIDES = ["ours", "stock"]
NO_NAMES = "--tls-no-cn-verify"
PACED = ("who_threads_random", "paced")

pytestmark = pytest.mark.skipif(paths.manager_name() != "ours", reason="pairs both by itself")


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


def binary(who):
    return str(paths.BUILD / "criu-lazy-pages") if who == "ours" else paths.real_criu()


@pytest.fixture
def source(case, pki):
    """Makes a Case whose memory is at a source with the server's and the client's TLS options."""
    def make(who, server=("server", NO_NAMES), client=("client",), program=("content_heap",)):
        kind = {"ours": remotes.OurServer, "stock": remotes.StockServer,
                "dump": remotes.LivingSource}[who]
        c = case(*program)
        c.remote = secured(kind, pki.options(*server) if server else [],
                           pki.options(*client) if client else [])
        return c
    return make


def serve(c, who="ours", **how):
    c.start()
    c.dump()
    c.serve(manager=None if who == "ours" else [binary(who), "lazy-pages"], **how)


@pytest.mark.parametrize("client", SIDES)
@pytest.mark.parametrize("server", SIDES)
def test_images_are_served(source, server, client):
    c = source(server)
    serve(c, client)
    c.restore()
    c.finish()


@pytest.mark.parametrize("client", SIDES)
def test_a_living_source_is_emptied(source, big_pipes, client):
    c = source("dump")
    serve(c, client)
    c.restore()
    c.finish()


@pytest.mark.parametrize("server", SIDES)
def test_a_dump_is_received(case, pki, server):
    c = case("content_heap")
    where = ["--address", "127.0.0.1", "--port", remotes.free_port()]
    receiver = remotes.started([binary(server), "page-server", "-D", c.images, "-W", c.work, "-v4",
                                "-o", "page-server.log", *where,
                                *pki.options("server", NO_NAMES)], c, "page-server")
    c.start()
    c.dump("--page-server", *where, *pki.options("client"))
    assert receiver.wait(timeout=20) == 0
    c.serve()
    c.restore()
    c.finish()


@pytest.mark.parametrize("client", SIDES)
def test_a_server_in_front_of_a_living_source(case, pki, big_pipes, client):
    m = Migration(case, "content_moving", 24).freeze().attach(*pki.options("server", NO_NAMES))
    d = m.destination(stock=client == "stock", options=pki.options("client"))
    d.finish()
    m.completed()


# What a worker that is killed has taken with it


def killed_again_and_again(c, times, seed):
    rng = random.Random(seed)
    for _ in range(times):
        time.sleep(rng.random() * 0.05)
        worker = c.worker()
        if worker and c.result() is None:
            processes.kill(worker)


def test_our_server_is_connected_to_again(source, seed):
    c = source("ours", program=PACED)
    serve(c, held=True)
    c.restore()
    killed_again_and_again(c, 8, seed)
    c.finish(complaints=[r"worker", r"link lost"])
    assert "connected again" in c.log()


def test_a_dump_is_not_let_go(source, big_pipes, seed):
    """Nobody else can go on with the session, and a dump is connected to only once: the tasks wait
    until they are given up, and then the source goes on."""
    c = source("dump", program=PACED)
    serve(c, held=True)
    c.restore()
    processes.wait_for(lambda: processes.waiting_for_pages(c.root), 10, "tasks that wait")
    processes.kill(c.worker())
    processes.wait_for(lambda: "the connection is kept" in c.log(), 10, "the next worker")
    time.sleep(0.5)
    assert c.result() is None and processes.waiting_for_pages(c.root)
    assert c.remote.server.poll() is None and c.process.poll() is None
    c.init.kill()
    c.init.wait()
    c.kill_manager()
    c.remote.goes_on(c)


# Who is not let in


def refuses_to_start(c, words, who="ours"):
    with pytest.raises(AssertionError, match="did not listen: exit status [1-9]"):
        serve(c, who)
    assert words in c.log()


@pytest.mark.parametrize("server", SIDES)
def test_our_client_refuses_who_has_another_authority(source, server):
    c = source(server, server=("stranger", NO_NAMES))
    refuses_to_start(c, "issuer is unknown")


@pytest.mark.parametrize("server", SIDES)
def test_our_client_compares_the_name_unless_told_not_to(source, server):
    refuses_to_start(source(server, server=("client", NO_NAMES)), "does not do for 127.0.0.1")
    c = source(server, server=("client", NO_NAMES), client=("client", NO_NAMES))
    serve(c)
    c.restore()
    c.finish()


@pytest.mark.parametrize("server", SIDES)
def test_plain_text_and_tls_do_not_meet(source, server):
    refuses_to_start(source(server, server=None), "TLS handshake")


def test_our_client_that_is_refused_says_so_and_does_not_hammer(source):
    """With TLS 1.3 a client learns of it only when its own handshake is done."""
    c = source("ours", client=("stranger", NO_NAMES))
    serve(c)
    time.sleep(3)
    lost = c.log().count("link lost: the server refuses our certificate")
    refused = c.log("page-server").count("issuer is unknown")
    c.kill_manager()
    assert 3 <= lost <= 25 and lost <= refused + 1
