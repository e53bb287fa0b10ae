# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes of a test: adopted, waited for, and ended one by one.

The test run is a "child subreaper": whatever loses its parent below it (a restored tree after
`criu restore -d`, a manager's worker) becomes its child. So its exit status can be had, and what a
test leaves behind is found by walking /proc from here.
"""

import ctypes
import os
import signal
import time

PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def stat(pid):
    """(comm, state, ppid), or None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            text = f.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    head, tail = text.rsplit(")", 1)
    words = tail.split()
    return head.split("(", 1)[1], words[0], int(words[1])


def comm(pid):
    s = stat(pid)
    return s[0] if s else None


def alive(pid):
    s = stat(pid)
    return s is not None and s[1] not in "ZX"


def descendants(root=None):
    """pids below root (this process by default), parents first, as they are now."""
    root = root or os.getpid()
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            s = stat(name)
            if s:
                children.setdefault(s[2], []).append(int(name))
    found, queue = [], [root]
    while queue:
        below = children.get(queue.pop(0), [])
        found += below
        queue += below
    return found


def wait_for(condition, timeout, what="", pause=0.005):
    """Polls until condition() gives something; that, or TimeoutError."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"{what or condition}: not within {timeout} s")
        time.sleep(pause)


def reap(pid):
    """Exit status of a dead child as Popen has it (-9 for SIGKILL); None: it lives, or not ours."""
    try:
        got, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if got else None


def kill(pid, sig=signal.SIGKILL):
    try:
        os.kill(pid, sig)
    except ProcessLookupError:
        pass


def kill_tree(keep=(), patience=0, timeout=10):
    """Ends every process below this one but those in keep; those it had to kill, as (pid, comm).

    For the first `patience` seconds it only waits for them to end by themselves.
    """
    killed = {}
    start = time.monotonic()
    while True:
        left = [p for p in descendants() if p not in keep]
        if not left:
            return sorted(killed.items())
        now = time.monotonic() - start
        for pid in left:
            if now >= patience and alive(pid):
                killed.setdefault(pid, comm(pid))
                kill(pid)
            reap(pid)
        if now > patience + timeout:
            raise TimeoutError(f"processes that cannot be killed: {[(p, comm(p)) for p in left]}")
        time.sleep(0.005)


def threads(pid):
    try:
        return sorted(int(t) for t in os.listdir(f"/proc/{pid}/task"))
    except FileNotFoundError:
        return []


def waiting_for_pages(pid):
    """How many threads of the process wait in the kernel for a page of a userfaultfd."""
    count = 0
    for tid in threads(pid):
        try:
            with open(f"/proc/{pid}/task/{tid}/wchan", encoding="ascii") as f:
                count += "userfault" in f.read()
        except (FileNotFoundError, ProcessLookupError):
            pass
    return count


def kill_thread(pid, tid, sig):
    # Python has no tgkill(2).
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(234, pid, tid, int(sig)):
        raise OSError(ctypes.get_errno(), f"tgkill({pid}, {tid})")


def cpu_seconds(pids):
    """What these processes have used so far, all threads that are there, to the nanosecond."""
    used = 0
    for pid in pids:
        for tid in threads(pid):
            try:
                with open(f"/proc/{pid}/task/{tid}/schedstat", encoding="ascii") as f:
                    used += int(f.read().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                pass
    return used / 1e9


def resident_pages(pid):
    """Anonymous pages that are there, or None when the process is not."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as f:
            line = next((x for x in f if x.startswith("RssAnon:")), None)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(line.split()[1]) // 4 if line else None
