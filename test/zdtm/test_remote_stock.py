# SPDX-License-Identifier: GPL-2.0-or-later
"""Every pair of ours and CRIU's, 4.1 with its headers of 24 bytes and 4.2 with its 32."""

import functools

import pytest

from harness import paths
from harness import remote as remotes

VERSIONS = ["4.1", None]
# None of them asks for MADV_WIPEONFORK before the dump, which is lost in images of 4.1.
PROGRAMS = [("content_sparse",), ("who_threads_random",), ("event_fork", "deep")]


@pytest.fixture(params=remotes.MODES)
def remote(request, version, big_pipes):
    return functools.partial(remotes.MODES[request.param], version=version)


@pytest.mark.parametrize("version", VERSIONS, ids=["4.1", "4.2"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p[0])
def test_our_client_of_either_version(case, program):
    """The layout follows from the images; the restore is always the newer CRIU's."""
    case(*program).run()


@pytest.mark.parametrize("remote", ["our-server"], indirect=True)
@pytest.mark.parametrize("version", VERSIONS, ids=["4.1", "4.2"])
def test_stock_client_of_either_version(case, version):
    """Our server finds out what it is spoken to in."""
    c = case("content_heap")
    c.start()
    c.dump()
    c.serve(manager=[paths.real_criu(version), "lazy-pages"])
    c.restore()
    c.finish()


@pytest.mark.skipif(paths.manager_name() == "stock",
                    reason="stock knows one layout only")
@pytest.mark.parametrize("remote", ["stock-server"], indirect=True)
@pytest.mark.parametrize("version", VERSIONS, ids=["4.1", "4.2"])
def test_layout_that_the_images_do_not_tell(case, version):
    """The images are of 4.1, and have the older counts only."""
    c = case("content_heap")
    c.start()
    c.dump_here(version="4.1")
    c.serve("--ps-layout", 24 if version else 32)
    c.restore()
    c.finish()
