# SPDX-License-Identifier: GPL-2.0-or-later
"""mremap of locked memory that grows does not hang, and the mapping stays one."""

import pytest


@pytest.mark.parametrize("how", ["in_place", "moved", "anywhere"])
def test_locked_memory_grows(case, how):
    case("event_locked", how).run(held=True)
