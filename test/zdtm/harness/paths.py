# SPDX-License-Identifier: GPL-2.0-or-later
"""Where things are: the tree, the build, the real CRIU, the manager under test."""

import functools
import os
import pathlib
import subprocess

TOP = pathlib.Path(__file__).resolve().parents[3]
# LAZY_BUILD is where the manager is (build/asan, say); what is checkpointed is always in build/.
BUILD = (TOP / os.environ.get("LAZY_BUILD", "build")).resolve()
PROGRAMS = TOP / "build" / "test" / "programs"
PLUGINS = TOP / "build" / "plugins"


@functools.lru_cache(maxsize=None)
def real_criu(version=None):
    """Path of a CRIU that works here, as scripts/real-criu has it."""
    command = [str(TOP / "scripts" / "real-criu")] + ([version] if version else [])
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def manager_name():
    """"ours", or "stock" for criu lazy-pages: to see that a test is right, or what stock does."""
    name = os.environ.get("LAZY_MANAGER", "ours")
    assert name in ("ours", "stock"), f"LAZY_MANAGER={name}: not ours, not stock"
    return name


def manager_command():
    if manager_name() == "stock":
        return [real_criu(), "lazy-pages"]
    return [str(BUILD / "criu-lazy-pages"), "lazy-pages"]


def program(name):
    path = PROGRAMS / name
    assert path.exists(), f"{path} is not there: make programs"
    return str(path)
