# SPDX-License-Identifier: GPL-2.0-or-later
"""Checkpoint a program with real CRIU, restore it lazily against a manager, check everything.

    def test_something(case):
        case("program", "argument").run(held=True)

run() is these steps, which a test may take one by one, with its own things in between:

    c = case("program", "argument")     # fixture of conftest.py; c.dir, c.images, c.work, c.seed
    c.start()                           # runs build/test/programs/program, waits for "ready"
    c.dump()                            # criu dump; the program is dead afterwards
    c.serve(held=True)                  # starts the manager; waits until it listens
    c.restore()                         # criu restore --lazy-pages -d; pidns=True: in a namespace
    c.finish()                          # result PASS, exit status 0, manager exits 0, logs clean

held=True: the background begins only a second after the restore-finished word (faults are served at
once), so what the program does first, it does while everything is owed (pages_must_be_owed() of
lazytest.h makes sure). held=False: the background races with it. The fixture `held` is both.

c.root is the pid of the restored root as this process sees it, c.manager the Popen of the manager,
c.result() the program's words or None. Every step raises AssertionError with the reason; log tails
and the command that runs the one test again, seed included, are printed by conftest.py.
LAZY_MANAGER=stock runs everything against `criu lazy-pages`. LAZY_SEED=N sets the seed.
"""

from .case import Case
from . import paths, processes

__all__ = ["Case", "paths", "processes"]
