# SPDX-License-Identifier: GPL-2.0-or-later
"""What a task does to its address space while its memory is owed. One act a test.

Each act runs twice: held, so that all is owed when it happens, and racing, with a background that
begins at a random moment of the act. The programs keep a model of every page and check it from
inside, in parents and children, while and after; the last check is when the manager has let go.
"""

import random
import re
import signal

import pytest

from harness import paths, processes

TORTURE_MS = 2500
DELAY = "LAZY_PAGES_TEST_BACKGROUND_DELAY_MS"


def acts(program, *left_out):
    """Names of a program's acts, from its table; those left out have a test of their own."""
    text = (paths.TOP / "test/zdtm/programs" / f"{program}.c").read_text()
    found = re.findall(r'^\t\{ ?"(\w+)",', text, re.MULTILINE)
    assert found and set(left_out) <= set(found)
    return [name for name in found if name not in left_out]


def restored(case, held, program, *arguments, until_ms=None):
    """The case with its program on the way; held until the given time, or racing within it."""
    c = case(program, *arguments)
    c.start()
    c.dump()
    delay = until_ms if held else random.Random(c.seed).randrange(until_ms or 30)
    c.serve(held=held, env={} if delay is None else {DELAY: str(delay)})
    c.restore()
    return c


@pytest.mark.parametrize("act", acts("event_fork"))
def test_fork(case, held, act):
    restored(case, held, "event_fork", act).finish()


@pytest.mark.parametrize("act", acts("event_end", "became", "became_child", "waits",
                                     "parent_exits"))
def test_end_in_mid_transfer(case, held, act):
    restored(case, held, "event_end", act).finish()


def test_parent_exits_and_the_child_goes_on(case, held):
    c = restored(case, held, "event_end", "parent_exits")
    c.wait_exit()
    processes.wait_for(c.result, 60, "the child's result")
    c.finish()


def test_whole_task_killed_in_mid_transfer(case, held):
    c = restored(case, held, "event_end", "waits")
    processes.kill(c.root, signal.SIGKILL)
    c.wait_exit(-signal.SIGKILL)
    c.wait_manager()
    c.check_log()


@pytest.mark.parametrize("act", acts("event_unmap", "big_unmap", "big_dontneed", "big_move"))
def test_unmap(case, held, act):
    restored(case, held, "event_unmap", act).finish()


@pytest.mark.parametrize("gib", [3, 5])
@pytest.mark.parametrize("act", ["big_unmap", "big_dontneed", "big_move"])
def test_unmap_of_gibibytes(case, held, act, gib):
    restored(case, held, "event_unmap", act, gib).finish()


@pytest.mark.parametrize("act", acts("event_remap"))
def test_remap(case, held, act):
    restored(case, held, "event_remap", act).finish()


@pytest.mark.parametrize("act", acts("event_discard"))
def test_discard(case, held, act):
    restored(case, held, "event_discard", act).finish()


@pytest.mark.parametrize("threads", [1, 4])
def test_torture(case, held, threads):
    """A random mix of all of it; held until shortly before its end."""
    restored(case, held, "event_torture", "mix", threads, TORTURE_MS,
             until_ms=TORTURE_MS - 500).finish()
