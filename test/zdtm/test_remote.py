# SPDX-License-Identifier: GPL-2.0-or-later
"""What local restores are tested for, once more with the memory on another machine.

Every test of the modules below runs again as it stands there, in each of three modes (see
harness/remote.py): our page server, stock CRIU's, and a source that `criu dump --lazy-pages` has
frozen. Tests that have nothing to do with events leave stock's server out, for it is slow. Where a
test runs both held and racing, one of the two is chosen by the seed: racing most of the time, for
that is sooner over; in time both come up.
"""

import random

import pytest

import test_contents
import test_events
import test_smoke
import test_trees
import test_who_faults
from harness import paths
from harness import remote as remotes

# Stock reads all images into pipes before it listens, and has no room for as many pieces; a frozen
# source has nothing that a test could write into its page map; and it takes a minute.
LEFT_OUT = {"test_page_map_of_a_million_ranges"}

WITHOUT_STOCK = (test_contents, test_smoke, test_who_faults)

for module in (*WITHOUT_STOCK, test_events, test_trees):
    for name, what in vars(module).items():
        if name.startswith("test_") and name not in LEFT_OUT:
            assert name not in globals(), name
            globals()[name] = what


def pytest_generate_tests(metafunc):
    few = metafunc.function.__name__ in {n for m in WITHOUT_STOCK for n in vars(m)}
    modes = [m for m in remotes.MODES if not few or m != "stock-server"]
    metafunc.parametrize("remote", modes, indirect=True)


@pytest.fixture
def remote(request, big_pipes):
    return remotes.MODES[request.param]


@pytest.fixture
def held(request, seed):
    return paths.manager_name() == "ours" and \
        random.Random(f"{seed} {request.node.name}").random() < 0.25
