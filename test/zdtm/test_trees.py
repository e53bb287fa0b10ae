# SPDX-License-Identifier: GPL-2.0-or-later
"""Trees of processes, their states, and tasks that end while their memory is arriving.

A manager that has nothing left to serve because everybody is gone exits 0 and complains of nothing.
"""

import random
import signal
import time

import pytest

from harness import paths, processes


def test_sixty_four_processes(case, held):
    case("tree_many").run(held=held)


def test_sixty_four_processes_in_a_pid_namespace(case, held):
    case("tree_many").run(held=held, pidns=True)


def test_sessions_groups_zombies_and_a_stopped_child(case, held):
    case("tree_states").run(held=held)


def prepared(case, program, *arguments, held):
    c = case(program, *arguments)
    c.start()
    c.dump()
    c.serve(held=held)
    c.restore()
    return c


def needs_holding():
    if paths.manager_name() == "stock":
        pytest.skip("stock has everything in before it can be stopped")


def stop_until_they_wait(c, threads):
    """Stops the manager, has the threads touch a page each, waits until they wait for it."""
    c.stop_manager()
    (c.home / "touch").touch()
    processes.wait_for(lambda: processes.waiting_for_pages(c.root) >= threads, 20,
                       f"{threads} threads to wait for a page")


# How it ends, and the exit status that then counts.
WAYS = {"exit": 7, "exec": 0, "thread-exec": 0, "killed": -signal.SIGKILL}


@pytest.mark.parametrize("way", WAYS)
def test_ends_while_busy(case, held, way):
    c = prepared(case, "tree_end", way, "busy", held=held)
    if way == "killed":
        time.sleep(random.Random(c.seed).random() * 0.03)
        processes.kill(c.root)
    c.wait_exit(WAYS[way])
    assert c.result() == ("PASS" if "exec" in way else None)
    c.wait_manager()
    c.check_log()


@pytest.mark.parametrize("way", WAYS)
def test_ends_while_faults_wait(case, way):
    needs_holding()
    c = prepared(case, "tree_end", way, "waiting", held=True)
    stop_until_they_wait(c, 3)
    if way == "killed":
        processes.kill(c.root)
    (c.home / "act").touch()
    if "exec" not in way:
        c.wait_exit(WAYS[way])
        c.continue_manager()
    else:
        # What it executes is not owed, but what it needs to get there may be.
        c.continue_manager()
        c.wait_exit(WAYS[way])
    assert c.result() == ("PASS" if "exec" in way else None)
    c.wait_manager()
    c.check_log()


def test_threads_exit_while_their_faults_wait(case):
    needs_holding()
    c = prepared(case, "tree_thread_exit", held=True)
    stop_until_they_wait(c, 16)
    for tid in processes.threads(c.root):
        if tid != c.root:
            processes.kill_thread(c.root, tid, signal.SIGUSR1)
    processes.wait_for(lambda: len(processes.threads(c.root)) == 1, 20, "the threads to exit")
    c.continue_manager()
    c.finish()
