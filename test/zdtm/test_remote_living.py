# SPDX-License-Identifier: GPL-2.0-or-later
"""A source that stands still until all of its memory is held: it is never let go too early.

`criu dump --lazy-pages` takes a connection that is closed for a success and kills the source. So a
restore that fails, a manager that is told to go, and a worker that dies must not look like one.
"""

import random
import signal
import time

import pytest

from harness import paths, processes
from harness import remote as remotes

pytestmark = pytest.mark.skipif(paths.manager_name() == "stock",
                                reason="stock kills the source with its connection")

LOSSES = (r"Warn",)


@pytest.fixture(params=remotes.MODES)
def remote(request, big_pipes):
    return remotes.MODES[request.param]


def living(test):
    return pytest.mark.parametrize("remote", ["living-source"], indirect=True)(test)


def source_is_whole(c):
    """Still there, still frozen: nobody has let it go."""
    return c.remote.server.poll() is None and c.process.poll() is None


def under_way(case, *program):
    c = case(*program)
    c.start()
    c.dump()
    c.serve(held=True)
    c.restore()
    return c


def test_worker_killed_again_and_again(case, seed):
    """Where a link cannot be had twice, a worker that finds it in mid-stream either goes on or
    leaves it open; then the tasks wait, and the source is whole."""
    rng = random.Random(seed)
    c = under_way(case, "who_threads_random", "paced")
    killed = set()
    for _ in range(8):
        time.sleep(rng.random() * 0.05)
        worker = c.worker()
        if worker and c.result() is None:
            processes.kill(worker)
            killed.add(worker)
    assert len(killed) > 2
    processes.wait_for(lambda: c.result() or (
        processes.waiting_for_pages(c.root) and "parked" in c.log()), 60, "the tasks to go on")
    if c.result() is None:
        assert c.remote.name == "living-source" and source_is_whole(c)
        pytest.fail("the link is kept, but cannot be used any more")
    c.finish(complaints=LOSSES)


@living
def test_restore_that_fails_leaves_the_source_alive(case):
    """It has served pages by then; nothing of the destination has run."""
    c = case("content_heap")
    c.start()
    c.dump()
    c.serve(env={"LAZY_PAGES_TEST_BACKGROUND_DELAY_MS": "1000"})
    script = c.dir / "script"
    script.write_text('#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != post-restore ]\n',
                      encoding="utf-8")
    script.chmod(0o755)
    assert c.restore("--action-script", script, check=False) != 0
    c.wait_manager(expected=1)
    c.remote.goes_on(c)


@living
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_manager_told_to_go_before_the_restore_leaves_the_source_alive(case, sig):
    c = case("content_heap")
    c.start()
    c.dump()
    c.serve(held=True)
    time.sleep(0.2)
    assert source_is_whole(c)
    c.manager.send_signal(sig)
    c.wait_manager(expected=1)
    (c.home / "go.new").write_bytes(b"r")
    (c.home / "go.new").rename(c.home / "go")
    c.remote.goes_on(c)


@living
def test_source_is_there_until_the_last_page(case):
    """Frozen while anything is owed, and gone when nothing is."""
    c = case("content_heap")
    c.start()
    c.dump()
    c.serve(held=True, env={"LAZY_PAGES_TEST_BACKGROUND_DELAY_MS": "2500"})
    c.restore()
    while c.result() is None:
        assert source_is_whole(c)
        time.sleep(0.01)
    c.finish()


@living
def test_task_killed_in_mid_transfer_ends_the_source_too(case):
    """The destination has begun to run, so the source may never run again."""
    c = under_way(case, "who_threads_random", "paced")
    processes.kill(c.root)
    c.wait_exit(-signal.SIGKILL)
    c.wait_manager()
    c.check_log()


@living
def test_link_that_is_reset_lets_the_source_go_on_and_the_destination_wait(case):
    """That is how stock's dump takes a reset. The destination has half of its memory, and does not
    make up the rest: whoever calls the migration off has to end it."""
    c = case("who_outside")
    c.start()
    c.dump()
    forwarder = c.remote.forward()
    c.serve(env={"LAZY_PAGES_TEST_BACKGROUND_DELAY_MS": "1000"})
    c.restore()
    forwarder.reset()
    (c.home / "looked").touch()
    c.remote.goes_on(c)
    processes.wait_for(lambda: processes.waiting_for_pages(c.root), 10, "the destination to wait")
    time.sleep(0.5)
    assert c.status is None and c.manager.poll() is None
    assert processes.waiting_for_pages(c.root)
    processes.kill(c.root)
    c.wait_exit(-signal.SIGKILL)
    c.kill_manager()
