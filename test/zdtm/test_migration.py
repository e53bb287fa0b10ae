# SPDX-License-Identifier: GPL-2.0-or-later
"""A Redis in a runc container moves between two hosts while a client writes to it.

Every acknowledged write is there afterwards. Source and restore are stock runc and stock CRIU; ours
is the manager at the destination and, with attach, the page server beside the source.
"""

import pathlib
import shutil
import tempfile
import time

import pytest

from harness import container, paths
from harness.migration import Move

KEYS, SIZE = 40000, 1500  # 60 MB

pytestmark = pytest.mark.skipif(bool(container.can_run()), reason=container.can_run())
about_ours = pytest.mark.skipif(paths.manager_name() == "stock", reason="about our own manager")


@pytest.fixture
def move(request, big_pipes, nothing_left):
    directory = pathlib.Path(tempfile.mkdtemp(prefix="lazy-pages-move-"))
    try:
        with Move(directory, rate="1gbit") as m:
            m.fill(KEYS, SIZE)
            yield m
            if getattr(request.node, "failed", False):
                print(m.diagnostics())
    finally:
        shutil.rmtree(directory)


def test_redis_moves_eagerly(move):
    """The measure of the others, and what shows that the client would notice."""
    move.eager()
    move.check()


def test_redis_moves_by_post_copy(move):
    move.post_copy(paths.manager_command())
    move.check()


def unplugged_for_a_moment(move):
    def disturb():
        move.network.unplug()
        time.sleep(0.7)
        move.network.plug()
    return disturb


@about_ours
def test_cable_is_unplugged_during_the_move(move):
    move.post_copy(paths.manager_command(), disturb=unplugged_for_a_moment(move))
    move.check()


@about_ours
@pytest.mark.parametrize("unplugged", [False, True], ids=["steady", "unplugged"])
def test_redis_moves_with_our_page_server_beside_the_source(move, unplugged):
    move.post_copy(paths.manager_command(), attach=True,
                   disturb=unplugged_for_a_moment(move) if unplugged else None)
    move.check()
