# SPDX-License-Identifier: GPL-2.0-or-later
"""What a task does to its address space while its memory is owed. One act a test.

Each act runs twice: held, so that all is owed when it happens, and racing with the background. The
programs keep a model of every page and check it from inside, in parents and children, while and
after; the last check is when the manager has let go.
"""

import re
import signal

import pytest

from harness import paths, processes

TORTURE_MS = 2500


def acts(program, *left_out):
    """Names of a program's acts, from its table; those left out have a test of their own."""
    text = (paths.TOP / "test/zdtm/programs" / f"{program}.c").read_text()
    found = re.findall(r'^\t\{ "(\w+)",', text, re.MULTILINE)
    assert found and set(left_out) <= set(found)
    return [name for name in found if name not in left_out]


@pytest.mark.parametrize("act", acts("event_fork"))
def test_fork(case, held, act):
    case("event_fork", act).run(held=held)


@pytest.mark.parametrize("act", acts("event_end", "became", "became_child", "waits",
                                        "parent_exits"))
def test_end_in_mid_transfer(case, held, act):
    case("event_end", act).run(held=held)


def test_parent_exits_and_the_child_goes_on(case, held):
    c = case("event_end", "parent_exits")
    c.start()
    c.dump()
    c.serve(held=held)
    c.restore()
    c.wait_exit()
    processes.wait_for(c.result, 60, "the child's result")
    c.finish()


def test_whole_task_killed_in_mid_transfer(case, held):
    c = case("event_end", "waits")
    c.start()
    c.dump()
    c.serve(held=held)
    c.restore()
    processes.kill(c.root, signal.SIGKILL)
    c.wait_exit(-signal.SIGKILL)
    c.wait_manager()
    c.check_log()


@pytest.mark.parametrize("act", acts("event_unmap", "big_unmap", "big_dontneed", "big_move"))
def test_unmap(case, held, act):
    case("event_unmap", act).run(held=held)


@pytest.mark.parametrize("gib", [3, 5])
@pytest.mark.parametrize("act", ["big_unmap", "big_dontneed", "big_move"])
def test_unmap_of_gibibytes(case, held, act, gib):
    case("event_unmap", act, gib).run(held=held)


@pytest.mark.parametrize("act", acts("event_remap"))
def test_remap(case, held, act):
    case("event_remap", act).run(held=held)


@pytest.mark.parametrize("act", acts("event_discard"))
def test_discard(case, held, act):
    case("event_discard", act).run(held=held)


@pytest.mark.parametrize("threads", [1, 4])
def test_torture(case, held, threads):
    """A random mix of all of it; held until shortly before the end."""
    c = case("event_torture", "mix", threads, TORTURE_MS)
    c.start()
    c.dump()
    c.serve(held=held, env={"LAZY_PAGES_TEST_BACKGROUND_DELAY_MS": str(TORTURE_MS - 500)}
            if held else None)
    c.restore()
    c.finish()
