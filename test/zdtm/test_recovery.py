# SPDX-License-Identifier: GPL-2.0-or-later
"""Worker, keeper and deputy die, alone or two at a time, at any instant.

Tasks wait and go on with the right bytes; whoever is left makes the others anew; in the end the
manager exits 0 by itself.
"""

import random
import shutil
import signal
import threading
import time

import pytest

from harness import paths, processes

pytestmark = pytest.mark.skipif(paths.manager_name() == "stock",
                                reason="stock has no worker, and no second life")

# What a manager says that has lost a part of itself.
LOSSES = (r"Warn.*(worker|deputy|keeper)",)

# Threads that read and write all over an area; threads that map, move, discard and fork.
LOADS = [("who_threads_random",), ("event_torture", "mix", 2, 1500)]


def find(name):
    """pids of the manager's living processes of that name."""
    return [p for p in processes.descendants() if processes.comm(p) == name and processes.alive(p)]


def wait_all_gone(c, first):
    """The last keeper must exit with status 0; an orphan of ours when the first was killed."""
    if first:
        c.wait_manager()
        return
    (keeper,) = find("lazy-keeper") or [None]
    if keeper:
        assert processes.wait_for(
            lambda: [processes.reap(keeper)] if not processes.alive(keeper) else None, 60,
            "the second keeper to exit") == [0]
    processes.wait_for(lambda: not find("lazy-worker") and not find("lazy-deputy"), 10,
                       "worker and deputy to be gone")


def prepared(case, load, held):
    c = case(*load)
    c.start()
    c.dump()
    c.serve(held=held)
    return c


def kill_workers(c, rng, most):
    """Kills one worker after the other until it is all over; how many there were."""
    killed, last = 0, None
    while killed < most and c.result() is None:
        pid = c.worker()
        if pid is None or pid == last:
            time.sleep(0.001)
            continue
        last = pid
        # Some at birth, some when they are at work.
        time.sleep(rng.choice([0, 0.002, 0.01, 0.03]) * rng.random())
        if c.result() is None and c.manager.poll() is None:
            processes.kill(pid)
            killed += 1
    return killed


@pytest.mark.parametrize("load", LOADS, ids=lambda x: x[0])
def test_fifty_kills_of_the_worker(case, seed, load):
    """At random instants from the hand-off to the last page; with both loads a hundred."""
    total = rounds = 0
    while total < 50:
        rng = random.Random(seed + rounds)
        c = prepared(case, load, held=rounds % 2 == 0)
        where = f"seed {seed}, round {rounds}, after {total} kills"
        errors = []

        def restore(c=c, errors=errors):
            try:
                c.restore()
            except AssertionError as e:
                errors.append(e)

        restoring = threading.Thread(target=restore)
        restoring.start()
        total += kill_workers(c, rng, 20)
        restoring.join()
        assert not errors, f"{where}: {errors[0]}"
        try:
            c.finish(complaints=LOSSES)
        except AssertionError as e:
            raise AssertionError(f"{where}: {e}") from None
        shutil.rmtree(c.dir)
        rounds += 1
        assert rounds < 60, f"only {total} kills in {rounds} rounds"


@pytest.mark.parametrize("load", [("who_threads_random", "paced"), LOADS[1]],
                         ids=lambda x: x[0])
@pytest.mark.parametrize("victims", [("lazy-keeper",), ("lazy-deputy",),
                                     ("lazy-keeper", "lazy-worker"),
                                     ("lazy-deputy", "lazy-worker")], ids="+".join)
def test_keeper_or_deputy_killed(case, load, victims):
    """While only faults are served. On a busy machine that time may be missed: then once more."""
    for _ in range(5):
        c = prepared(case, load, held=True)
        c.restore()
        time.sleep(random.Random(c.seed).random() * 0.2)
        doomed = [p for name in victims for p in find(name)]
        for pid in doomed:
            processes.kill(pid)
        late = len(doomed) < len(victims)
        c.wait_result()
        c.wait_exit()
        wait_all_gone(c, first=late or "lazy-keeper" not in victims)
        c.check_log(LOSSES)
        if not late:
            return
    raise AssertionError("the manager was never there to be killed")


def test_each_is_killed_in_turn(case, seed):
    """Fifteen times one of the three, or two of them, while the other is left to make them anew."""
    rng = random.Random(seed)
    c = prepared(case, ("event_torture", "mix", 2, 3000), True)
    c.restore()
    names = ["lazy-keeper", "lazy-deputy", "lazy-worker"]
    for _ in range(15):
        processes.wait_for(lambda: all(find(n) for n in names) or c.result(), 20,
                           "keeper, deputy and worker to be there")
        if c.result():
            break
        victims = rng.sample(names, rng.choice([1, 1, 2]))
        if len(victims) == 2 and "lazy-worker" not in victims:
            victims.pop()  # keeper and deputy at once: nobody is left that can be copied
        for pid in [p for n in victims for p in find(n)]:
            processes.kill(pid)
        time.sleep(rng.random() * 0.1)
    c.wait_result()
    c.wait_exit()
    wait_all_gone(c, first=processes.alive(c.manager.pid) or c.manager.poll() == 0)
    c.check_log(LOSSES)


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_polite_signals_do_not_lose_memory(case, sig):
    """While a task owes its memory to the manager, the manager stays."""
    c = prepared(case, LOADS[0], held=True)
    c.restore()
    c.manager.send_signal(sig)
    c.finish(complaints=(r"Warn.*asked to stop",))


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_polite_signal_before_a_restore_ends_the_manager(case, sig):
    c = prepared(case, LOADS[0], held=False)
    c.manager.send_signal(sig)
    c.wait_manager(timeout=5, expected=1)
    assert not (c.work / "lazy-pages.socket").exists()
    assert not find("lazy-worker") and not find("lazy-deputy")
