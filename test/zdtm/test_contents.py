# SPDX-License-Identifier: GPL-2.0-or-later
"""What memory can hold and look like: every byte of it comes back. One program a test.

Each program checks all its pages from inside, while they are owed (held) and while they arrive on
their own (racing).
"""

import pytest

from harness import images, memory, paths


def test_brk_heap_comes_back_and_grows(case, held):
    case("content_brk").run(held=held)


def test_sparse_area_keeps_its_holes(case, held):
    case("content_sparse").run(held=held)


def test_forty_thousand_ranges_of_one_page(case, held):
    case("content_single_pages").run(held=held)


def test_ten_thousand_mappings_of_one_page(case, held):
    case("content_single_mappings").run(held=held)


def test_prot_none_read_only_and_code(case, held):
    case("content_protected").run(held=held)


def test_noreserve_area_of_4_gib(case, held):
    case("content_noreserve").run(held=held)


def test_thread_stacks(case, held):
    case("content_stacks").run(held=held)


def test_8_gib_with_little_in_it(case, held):
    case("content_wide").run(held=held)


def test_data_bss_and_thread_local(case, held):
    case("content_static").run(held=held)


def test_lazy_pages_between_pages_that_are_not(case, held):
    case("content_beside_files").run(held=held)


def test_huge_pages_come_back(case, held):
    wanted = ["collapse"] if paths.manager_name() == "ours" else []
    case("content_huge_pages", *wanted).run(held=held)


def test_huge_pages_stay_away_when_not_wanted(case, held):
    c = case("content_huge_pages", "never")
    c.start()
    c.dump()
    c.serve(*(["--thp=never"] if paths.manager_name() == "ours" else []), held=held)
    c.restore()
    c.finish()


@pytest.mark.parametrize("version", ["4.1"])
def test_images_of_the_older_criu(case, held, version, monkeypatch):
    """Its page maps count pages in another field."""
    old = paths.real_criu(version)
    monkeypatch.setattr(paths, "real_criu", lambda version=None: old)
    case("content_heap").run(held=held)


def test_page_map_of_a_million_ranges(case):
    """Real CRIU restores from a page map that was made by hand; most of the pages are zeros."""
    area, ranges, step = 0x300000000000, 1000000, 1021
    c = case("content_million_ranges")
    c.start()
    c.dump()
    images.insert_pages(
        c.images, c.process.pid, ((area + 2 * i * 4096, 1) for i in range(ranges)),
        ((area + 2 * i * 4096, memory.page(c.seed, area // 4096 + 2 * i))
         for i in range(0, ranges, step)))
    c.serve(held=True)
    c.restore()
    c.finish(timeout=120)
