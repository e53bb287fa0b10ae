# SPDX-License-Identifier: GPL-2.0-or-later
"""The socket between the restore and the manager.

Restores that fail, never come, come again, and whatever else may knock. A manager that refuses does
so by itself, with a reason and a status that is not 0; and it leaves no socket behind.
"""

import os
import random
import re
import shutil
import subprocess
import tempfile
import time

import pytest

from harness import Case, client, paths, processes


@pytest.fixture(scope="module")
def checkpoint():
    """Images of a small program; its pid in them."""
    directory = tempfile.mkdtemp(prefix="lazy-pages-test-")
    c = Case(directory, 1, "content_static")
    c.start()
    c.dump()
    yield c
    shutil.rmtree(directory)


@pytest.fixture
def serving(case, checkpoint):
    """A manager that waits for a restore of that checkpoint; serving.pid is the task's."""
    c = case("content_static")
    c.images = checkpoint.images
    c.pid = checkpoint.process.pid
    c.serve()
    return c


def refused(c, reason, timeout=10):
    """The manager must exit with status 1 and one Error line for the reason."""
    c.wait_manager(timeout, expected=1)
    errors = [line for line in c.log().splitlines() if re.search(r"\bError\b", line)]
    if paths.manager_name() == "ours":
        assert len(errors) == 1, "\n".join(errors) or "no Error line"
        assert re.search(reason, errors[0]), f"{errors[0]!r} does not say {reason!r}"
        assert not (c.work / "lazy-pages.socket").exists()
    else:
        assert errors


def test_restore_that_fails_half_way(case):
    c = case("content_heap")
    c.start()
    c.dump()
    c.serve()
    script = c.dir / "script"
    script.write_text('#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != post-restore ]\n', encoding="ascii")
    script.chmod(0o755)
    assert c.restore("--action-script", script, check=False) != 0
    refused(c, "restore failed")
    assert c.result() is None


def test_restore_that_is_killed_half_way(case):
    c = case("content_heap")
    c.start()
    c.dump()
    c.serve()
    script = c.dir / "script"
    script.write_text('#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" = post-restore ] || exit 0\n'
                      f"touch {c.dir}/half-way\nexec sleep 100\n", encoding="ascii")
    script.chmod(0o755)
    restore = subprocess.Popen(c.restore_command("--action-script", script), cwd=c.dir,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    processes.wait_for((c.dir / "half-way").exists, 20, "the restore to be half-way")
    below = processes.descendants(restore.pid)
    for pid in [restore.pid, *below]:
        processes.kill(pid)
    restore.wait()
    refused(c, "restore failed")


@pytest.mark.parametrize("seconds", [1, 2])
def test_restore_that_never_comes(case, checkpoint, seconds):
    c = case("content_static")
    c.images = checkpoint.images
    begin = time.monotonic()
    c.serve("--timeout", seconds)
    refused(c, rf"no restore.*{seconds} s|{seconds} s.*no restore", timeout=seconds + 5)
    assert seconds - 0.1 <= time.monotonic() - begin < seconds + 3


def test_time_out_counts_only_until_the_restore_comes(case):
    c = case("content_heap")
    c.start()
    c.dump()
    c.serve("--timeout", 1, held=True, env={"LAZY_PAGES_TEST_BACKGROUND_DELAY_MS": "2500"})
    c.restore()
    c.finish()


def test_second_restore_on_a_used_directory(case, held):
    """Logs and pid files of the first are there; so is the socket's name, when it was killed."""
    c = case("content_heap")
    c.start()
    c.dump()
    c.serve(held=held)
    c.restore()
    c.finish()
    assert not (c.work / "lazy-pages.socket").exists()
    (c.home / "result").unlink()
    c.serve(held=held)
    c.restore()
    c.finish()


def test_socket_of_a_killed_manager_is_replaced(serving):
    c = serving
    c.kill_manager()
    assert (c.work / "lazy-pages.socket").exists()
    c.serve()
    talk = client.Client(c.work)
    talk.close()
    refused(c, "restore failed")


def test_connection_closed_at_once(serving):
    client.Client(serving.work).close()
    refused(serving, "restore failed.*0 items")


def test_end_in_the_middle_of_a_pid(serving):
    talk = client.Client(serving.work)
    talk.send(b"\1\2")
    talk.close()
    refused(serving, "2 bytes instead of")


def test_end_between_pid_and_descriptor(serving):
    talk = client.Client(serving.work)
    talk.send_word(serving.pid)
    talk.close()
    refused(serving, f"task {serving.pid}")


def test_unknown_pid(serving):
    talk = client.Client(serving.work)
    talk.send_item(123456789, client.userfaultfd())
    refused(serving, "123456789.*not|neither")


def test_unknown_zombie(serving):
    talk = client.Client(serving.work)
    talk.send_word(-123456789)
    refused(serving, "-123456789")


def test_byte_without_descriptor(serving):
    talk = client.Client(serving.work)
    talk.send_word(serving.pid)
    talk.send(b"\0")
    refused(serving, f"no descriptor.*task {serving.pid}")


def test_descriptor_of_another_kind(serving):
    talk = client.Client(serving.work)
    read, write = os.pipe()
    talk.send_item(serving.pid, read)
    os.close(read)
    os.close(write)
    refused(serving, f"task {serving.pid} is no userfaultfd: pipe")


def test_same_task_twice(serving):
    talk = client.Client(serving.work)
    talk.send_item(serving.pid, client.userfaultfd())
    talk.send_item(serving.pid, client.userfaultfd())
    refused(serving, f"task {serving.pid}.*(twice|second|already)")


def test_end_of_restore_before_all_tasks_have_come(serving):
    """Should it go by unseen, the tasks that are missing would run on nobody's memory."""
    talk = client.Client(serving.work)
    talk.send_word(client.RESTORE_FINISHED)
    refused(serving, r"finished.*0 of 1|1 task.*not come|0 items")


def test_random_bytes(case, checkpoint, seed):
    """Twenty managers, each told something else. The pid is mixed in so that some get further."""
    rng = random.Random(seed)
    for i in range(20):
        c = case("content_static")
        c.images = checkpoint.images
        c.serve()
        talk = client.Client(c.work)
        for _ in range(rng.randrange(1, 20)):
            if rng.random() < 0.3:
                talk.send_word(checkpoint.process.pid)
            else:
                talk.send(rng.randbytes(rng.randrange(1, 40)))
        talk.close()
        try:
            refused(c, r"lazy-pages.socket|task \d+|restore failed|descriptor")
        except AssertionError as e:
            raise AssertionError(f"seed {seed}, manager {i}: {e}") from None


def test_daemon_writes_its_pid_and_serves(case, held):
    c = case("content_heap")
    c.start()
    c.dump()
    pidfile = c.work / "manager.pid"
    c.serve("--daemon", "--pidfile", "manager.pid", held=held)
    assert c.manager.wait(timeout=10) == 0, "the parent of the daemon"
    pid = int(pidfile.read_text())
    assert processes.alive(pid)
    assert os.getsid(pid) != os.getsid(0)
    c.restore()
    c.wait_result()
    c.wait_exit()
    assert processes.wait_for(lambda: [processes.reap(pid)] if not processes.alive(pid) else None,
                              20, "the daemon to exit") == [0]
    c.check_log()
