# SPDX-License-Identifier: GPL-2.0-or-later
"""The way to the memory is lost, in every manner: tasks wait, and go on with the right bytes.

Servers are killed, connections reset, stalled, cut at every byte of a header, links unplugged, and
servers lie. Never is a byte wrong (the programs look at all of them), and a second after the way is
back, pages arrive again.
"""

import random
import time

import pytest

from harness import paths, processes
from harness import remote as remotes
from harness.forwarder import DOWN, UP
from harness.liar import HEADERS, LIES, Liar
from harness.network import Network

pytestmark = pytest.mark.skipif(paths.manager_name() == "stock",
                                reason="stock loses memory with its connection")

# What is lost may be said; nothing of it is an error.
LOSSES = (r"Warn",)
BUSY = ("who_threads_random", "paced")
AT_ONCE = 1.0  # seconds within which pages come again
SERVERS = {"our-server": remotes.OurServer, "stock-server": remotes.TirelessStock}
DELAY = "LAZY_PAGES_TEST_BACKGROUND_DELAY_MS"


@pytest.fixture(params=SERVERS)
def remote(request, big_pipes):
    if request.param is None:
        return lambda: None
    return SERVERS[request.param]


our_server = pytest.mark.parametrize("remote", ["our-server"], indirect=True)


@pytest.fixture
def network():
    with Network() as n:
        yield n


def lossy(case, *program):
    c = case(*program)
    if c.remote:
        c.remote.complaints += LOSSES
    return c


def under_way(case, program=BUSY, delay_ms=None, forward=True):
    """Restored, with its memory on the way, nearly all of it owed when nobody has waited."""
    c = lossy(case, *program)
    c.start()
    c.dump()
    if forward:
        c.remote.forward()
    c.serve(held=True, env={} if delay_ms is None else {DELAY: str(delay_ms)})
    c.restore()
    return c


def tasks_wait(c):
    """What was on its way may still arrive; then nothing does."""
    processes.wait_for(lambda: processes.waiting_for_pages(c.root), 10, "a task to wait")

    def nothing_arrives():
        before = processes.resident_pages(c.root)
        time.sleep(0.3)
        return processes.resident_pages(c.root) == before
    processes.wait_for(nothing_arrives, 3, "the last page, with nobody there to send any")
    assert c.result() is None and processes.waiting_for_pages(c.root)


def pages_arrive(c, within=AT_ONCE):
    """More pages than there were, or the end of it all."""
    before = processes.resident_pages(c.root)
    processes.wait_for(
        lambda: c.result() or (processes.resident_pages(c.root) or 0) > before, within,
        "pages to arrive again")


def test_server_killed_and_started_again(case, seed):
    c = under_way(case, forward=False)
    rng = random.Random(seed)
    for _ in range(3):
        time.sleep(rng.random() * 0.1)
        c.remote.kill()
        tasks_wait(c)
        c.remote.start(c)
        pages_arrive(c)
    c.finish(complaints=LOSSES)


def test_connections_end(case, seed):
    c = under_way(case)
    rng = random.Random(seed)
    for _ in range(10):
        time.sleep(rng.random() * 0.1)
        rng.choice([c.remote.forwarder.reset, c.remote.forwarder.cut])()
    assert c.remote.forwarder.connections > 1
    c.finish(complaints=LOSSES)


def test_connections_stall_and_cost_nothing_meanwhile(case):
    c = under_way(case)
    time.sleep(0.05)
    c.remote.forwarder.stall()
    tasks_wait(c)
    time.sleep(0.5)
    pids = c.manager_pids()
    before, began = processes.cpu_seconds(pids), time.monotonic()
    time.sleep(3)
    used = (processes.cpu_seconds(pids) - before) / (time.monotonic() - began)
    assert used < 0.01, f"waiting costs {used * 100:.1f} % of a core"
    c.remote.forwarder.go()
    pages_arrive(c)
    c.finish(complaints=LOSSES)


@our_server
def test_nobody_listens_for_a_while(case):
    c = under_way(case)
    time.sleep(0.05)
    c.remote.forwarder.shut()
    c.remote.forwarder.reset()
    tasks_wait(c)
    time.sleep(1.5)
    c.remote.forwarder.open()
    pages_arrive(c)
    c.finish(complaints=LOSSES)


@our_server
def test_cut_at_bytes_of_a_header(case, seed):
    """Every third byte of requests and of answers; the seed says which, and in time all are."""
    c = lossy(case, *BUSY)
    c.start()
    c.dump()
    forwarder = c.remote.forward()
    cuts = range(seed % 3, 33, 3)
    for count in cuts:
        forwarder.cut_after(UP, count)
        forwarder.cut_after(DOWN, count)
    c.serve(held=True, env={DELAY: "3000"})
    c.restore()
    processes.wait_for(lambda: c.result() or forwarder.connections > 2 * len(cuts), 60,
                       "all connections to be cut")
    assert forwarder.connections > 2 * len(cuts)
    c.finish(complaints=LOSSES)


@pytest.mark.parametrize("remote", [None], indirect=True)
@pytest.mark.parametrize("lie", LIES)
def test_server_that_lies(case, seed, lie):
    """Whoever is lied to waits. When the truth is told, everybody goes on."""
    c = case("who_outside")
    layout = random.Random(seed).choice([*HEADERS])
    c.start()
    c.dump()
    remotes.ImageServer.hide_pages(c)
    liar = Liar(c.source_images, layout)
    try:
        c.serve("--page-server", "--address", "127.0.0.1", "--port", liar.port, "--ps-layout",
                layout, held=True)
        c.restore()
        liar.lie = LIES[lie]
        (c.home / "looked").touch()
        processes.wait_for(lambda: liar.told >= 3, 20, "three lies")
        time.sleep(0.2)
        assert c.result() is None
        liar.lie = None
        c.finish(complaints=LOSSES)
        assert liar.closes == 1 and not liar.misunderstood
    finally:
        liar.close()


def across(case, network, program=BUSY, **more):
    """Server and manager at the two ends of a cable."""
    c = lossy(case, *program)
    c.remote.address = network.far.address
    c.at_destination = network.near.prefix
    c.start()
    c.dump()
    c.at_source = network.far.prefix
    c.serve(held=True, **more)
    c.restore()
    return c


@pytest.mark.parametrize("away", [0.3, 2.5])
@our_server
def test_cable_is_unplugged_for_a_while(case, network, away):
    c = across(case, network)
    time.sleep(0.05)
    network.unplug()
    tasks_wait(c)
    time.sleep(away)
    network.plug()
    pages_arrive(c)
    c.finish(complaints=LOSSES)


@pytest.mark.parametrize("away", [0.3, 2.5])
@our_server
def test_packets_vanish_for_a_while(case, network, away):
    c = across(case, network)
    time.sleep(0.05)
    network.drop()
    tasks_wait(c)
    time.sleep(away)
    network.heal()
    pages_arrive(c)
    c.finish(complaints=LOSSES)


@our_server
def test_some_packets_are_lost(case, network):
    network.lose(0.002)
    across(case, network).finish(complaints=LOSSES)


@our_server
def test_narrow_link_and_many_faults(case, network):
    """64 MiB take 2.7 s on this link, whatever is asked for first."""
    network.rate("200mbit")
    began = time.monotonic()
    across(case, network, env={DELAY: "0"}).finish(complaints=LOSSES)
    assert time.monotonic() - began < 10


@our_server
def test_two_hundred_losses_of_any_kind(case, seed):
    """In a random order, at random instants, and in between it may work for a moment."""
    rng = random.Random(seed)
    lost = 0
    while lost < 200:
        c = under_way(case, delay_ms=5000)
        while lost < 200 and c.result() is None:
            forwarder = c.remote.forwarder
            how = rng.choice([forwarder.reset, forwarder.cut, forwarder.stall, c.remote.kill])
            time.sleep(rng.random() * 0.02)
            how()
            time.sleep(rng.random() * 0.02)
            if how == forwarder.stall:
                forwarder.go()
            elif how == c.remote.kill:
                c.remote.start(c)
            lost += 1
        c.finish(complaints=LOSSES)
