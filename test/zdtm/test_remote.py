# SPDX-License-Identifier: GPL-2.0-or-later
"""What local restores are tested for, once more with the memory on another machine.

Every test of the modules below runs again as it stands there, in each of three modes (see
harness/remote.py): our page server, stock CRIU's, and a source that `criu dump --lazy-pages` has
frozen. Where a test runs both held and racing, one of the two is chosen by the seed: racing most of
the time, for that is sooner over; in time both come up.
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

for module in (test_contents, test_events, test_smoke, test_trees, test_who_faults):
    for name, what in vars(module).items():
        if name.startswith("test_"):
            assert name not in globals(), name
            globals()[name] = what

# Stock reads all images into pipes before it listens, and has no room for as many pieces; a frozen
# source has nothing that a test could write into its page map.
LEFT_OUT = {
    "stock-server": {"test_page_map_of_a_million_ranges"},
    "living-source": {"test_page_map_of_a_million_ranges"},
    "our-server": set(),
}


def pytest_generate_tests(metafunc):
    metafunc.parametrize("mode", [m for m in remotes.MODES
                                  if metafunc.function.__name__ not in LEFT_OUT[m]])


@pytest.fixture
def remote(request, mode, big_pipes):
    if mode == "our-server" and not remotes.ours_serves():
        pytest.skip("this build has no page server")
    if not remotes.client_is_built():
        pytest.skip("this build has no client of page servers")
    return remotes.MODES[mode]


@pytest.fixture
def held(request, mode, seed):
    return paths.manager_name() == "ours" and \
        random.Random(f"{seed} {request.node.name}").random() < 0.25
