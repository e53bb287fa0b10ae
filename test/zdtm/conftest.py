# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures for all tests; nothing of a test is left behind; failures say how to run them again."""

import os
import pathlib
import random
import shutil
import tempfile

import pytest

from harness import Case, paths, processes
from harness.receiver import Receiver
from harness.remote import PIPE_MAX_SIZE, PIPES_FOR_STOCK

SEEDS = random.Random(int(os.environ["LAZY_SEED"]) if "LAZY_SEED" in os.environ else None)


def pytest_configure():
    processes.adopt_orphans()


@pytest.fixture
def seed():
    if "LAZY_SEED" in os.environ:
        return int(os.environ["LAZY_SEED"])
    return SEEDS.getrandbits(32)


@pytest.fixture(params=[True, False], ids=["held", "racing"])
def held(request):
    """Whether the background waits for what the program does first."""
    return request.param


def mounts():
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        return {line.split()[4] for line in f}


@pytest.fixture
def nothing_left(request):
    """A test that passed has left no process and no mount; after one that failed they are ended."""
    before = set(processes.descendants())
    mounted = mounts()
    yield
    failed = getattr(request.node, "failed", False)
    left = processes.kill_tree(keep=before, patience=0 if failed else 3)
    assert failed or not left, f"processes left behind: {left}"
    assert mounts() <= mounted, f"mounts left behind: {mounts() - mounted}"


@pytest.fixture
def remote():
    """Makes what a Case takes as its remote: nothing here, for the images have all its memory."""
    return lambda: None


@pytest.fixture(scope="session")
def big_pipes():
    """Pipes as `criu dump --lazy-pages` wants them; as they were afterwards."""
    path = pathlib.Path(PIPE_MAX_SIZE)
    before = path.read_text(encoding="ascii")
    if int(before) < PIPES_FOR_STOCK:
        path.write_text(str(PIPES_FOR_STOCK), encoding="ascii")
    yield
    path.write_text(before, encoding="ascii")


@pytest.fixture
def case(request, seed, remote, nothing_left):
    """Makes Cases: case("program", arguments...). Removed afterwards unless the test failed."""
    cases = []

    def make(program, *arguments):
        directory = tempfile.mkdtemp(prefix="lazy-pages-test-")
        cases.append(Case(directory, seed, program, *arguments, remote=remote()))
        return cases[-1]

    request.node.cases = cases
    yield make
    for c in cases:
        if c.remote:
            c.remote.close()
        if getattr(request.node, "failed", False):
            for big in c.dir.glob("*images/pages-*.img"):
                big.unlink()
        else:
            shutil.rmtree(c.dir, ignore_errors=True)


@pytest.fixture
def receiver(request, nothing_left):
    """Makes Receivers, which do not outlive the test."""
    made = []

    def make(*arguments, **more):
        made.append(Receiver(*arguments, **more))
        return made[-1]
    yield make
    for r in made:
        if getattr(request.node, "failed", False):
            print(r.log()[-3000:])
        r.kill()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if not report.failed:
        return
    item.failed = True
    cases = getattr(item, "cases", [])
    for c in cases:
        report.sections.append(("case", c.diagnostics()))
    seed = f"LAZY_SEED={cases[0].seed} " if cases else ""
    report.sections.append((
        "run again", f"{seed}LAZY_MANAGER={paths.manager_name()} "
        f"/usr/bin/python3 -m pytest '{item.nodeid}'"))


def pytest_sessionfinish(session):
    """Not one process may have outlived its test."""
    left = [(p, processes.comm(p)) for p in processes.descendants() if processes.alive(p)]
    if left:
        processes.kill_tree()
        session.exitstatus = 1
        print(f"\nprocesses left behind: {left}")
