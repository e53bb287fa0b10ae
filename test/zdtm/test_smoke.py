# SPDX-License-Identifier: GPL-2.0-or-later
"""The shortest way through everything: if this fails, look here first."""


def test_heap_comes_back(case, held):
    case("content_heap").run(held=held)


def test_heap_comes_back_in_a_pid_namespace(case, held):
    case("content_heap").run(held=held, pidns=True)
