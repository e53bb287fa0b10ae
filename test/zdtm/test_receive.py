# SPDX-License-Identifier: GPL-2.0-or-later
"""criu dump --page-server to our page server, by real CRIU; what comes of it restored by CRIU."""

import os
import random
import shutil
import subprocess

import pytest

from harness import images, paths, processes, wire
from harness.receiver import (Recorder, commands, dump_to, ours, replay, restore_eagerly,
                              start_dump, stock)

PAGE = 4096

pytestmark = pytest.mark.skipif(paths.manager_name() != "ours", reason="about our own server")


def started(case, program, *arguments):
    c = case(program, *arguments)
    c.start()
    return c


@pytest.mark.parametrize("dumper,restorer", [(None, None), ("4.1", "4.1"), ("4.1", None)])
@pytest.mark.parametrize("program", ["content_heap", "content_shared", "content_static"])
def test_dump_to_us_is_restored(case, receiver, program, dumper, restorer):
    c = started(case, program)
    dump_to(c, receiver(c.images, c.work).start(), version=dumper)
    assert not list(c.images.glob("*.incomplete"))
    restore_eagerly(c, restorer)


@pytest.mark.parametrize("program", ["tree_many", "tree_states", "who_threads_one_page",
                                     "content_single_pages", "content_sparse"])
def test_trees_threads_and_strewn_pages(case, receiver, program):
    c = started(case, program)
    dump_to(c, receiver(c.images, c.work).start())
    restore_eagerly(c)


def test_lazy_restore_of_what_came_to_us(case, receiver, held):
    c = started(case, "content_heap")
    dump_to(c, receiver(c.images, c.work).start())
    c.serve(held=held)
    c.restore()
    c.finish()


@pytest.mark.parametrize("layout,version", [(32, None), (24, "4.1")])
def test_layout_can_be_forced(case, receiver, layout, version):
    c = started(case, "content_heap")
    dump_to(c, receiver(c.images, c.work).start("--ps-layout", layout), version=version)
    restore_eagerly(c, version)


@pytest.mark.parametrize("version", [None, "4.1"])
def test_dump_through_tls(case, receiver, tmp_path, version):
    subprocess.run([paths.TOP / "test/zdtm/make-pki", tmp_path], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def credentials(name):
        return ["--tls", "--tls-cacert", tmp_path / "ca.pem", "--tls-cert",
                tmp_path / f"{name}.pem", "--tls-key", tmp_path / f"{name}-key.pem"]
    c = started(case, "content_heap")
    server = receiver(c.images, c.work).start(*credentials("server"))
    dump_to(c, server, *credentials("client"), version=version)
    restore_eagerly(c, version)


def test_half_a_gibibyte_in_bounded_memory(case, receiver):
    c = started(case, "content_big", 512)
    server = receiver(c.images, c.work).start()
    dump = start_dump(c, server)
    peak = 0
    while dump.poll() is None:
        peak = max(peak, server.peak_kib())
    assert dump.returncode == 0 and server.wait() == 0
    assert sum(p.stat().st_size for p in c.images.glob("pages-*.img")) > 512 << 20
    assert 0 < peak < 16 << 10, f"{peak} KiB"
    c.process.wait(timeout=10)
    restore_eagerly(c)


# The same words to stock's server and to ours


def entries(path):
    """The number of the pages file, and entries without regard to how their pages are counted."""
    head, *records = [images.numbers(r) for r in images.read_records(path)]
    return head, [(r[1], r.get(5) or r[2], r.get(3), r[4]) for r in records]


def same_images(one, other):
    names = sorted(p.name for p in one.glob("pa*.img"))
    assert names and names == sorted(p.name for p in other.glob("pa*.img"))
    for name in names:
        if name.startswith("pages"):
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
        else:
            assert entries(one / name) == entries(other / name), name


@pytest.mark.parametrize("program", ["tree_states", "content_shared", "content_single_pages"])
def test_same_files_as_stock_makes(case, receiver, tmp_path, program):
    c = started(case, program)
    server = receiver(c.images, c.work).start()
    recorder = Recorder(server.port)
    dump_to(c, server, port=recorder.port)
    recorder.join(timeout=10)
    answers = []
    for name, command in ("ours", ours()), ("stock", stock()):
        d = tmp_path / name
        d.mkdir()
        again = receiver(d, d, command).start()
        answers.append(replay(again, recorder.said))
        assert again.wait() == 0
    assert answers[0] == answers[1] and answers[0].endswith(bytes(4))
    same_images(tmp_path / "ours", tmp_path / "stock")
    same_images(tmp_path / "ours", c.images)


@pytest.mark.parametrize("layout", [24, 32])
def test_pieces_of_any_length(receiver, tmp_path, seed, layout):
    r = random.Random(seed)
    said, wanted, at = wire.header(layout, wire.OPEN2, id_=12 << 8 | 1), [], 0x10000
    for _ in range(60):
        pages = r.choice([1, 1, 2, 3, 63, 64, 65, 255, 256, 257, 258, 1000])
        at += r.randrange(3) * PAGE
        wanted.append(r.randbytes(pages * PAGE))
        said += wire.header(layout, wire.ADD_F, pages, at, 12 << 8 | 1, 6) + wanted[-1]
        at += pages * PAGE
    server = receiver(tmp_path, tmp_path).start()
    with server.client() as c:
        while said:
            n = r.choice([1, 100, PAGE, 70000, 1 << 20])
            c.send(said[:n])
            said = said[n:]
        assert c.read(1) == b"\0"
        c.layout = layout
        assert c.say_close() == 0
    assert server.wait() == 0
    assert (tmp_path / "pages-65537.img").read_bytes() == b"".join(wanted)


# Parents. This kernel does not track what changes, so two whole dumps become a pair.


def pages_of(directory):
    """{(name of the image, address): bytes}, of all pages in a directory."""
    pages = {}
    for path in directory.glob("pagemap-*.img"):
        head, records = entries(path)
        with open(directory / f"pages-{head[1]}.img", "rb") as f:
            for vaddr, count, _, _ in records:
                for i in range(count):
                    pages[path.name, vaddr + i * PAGE] = f.read(PAGE)
    return pages


def name_of(id_):
    return f"pagemap-{'shmem-' if id_ & 255 == 2 else ''}{id_ >> 8}.img"


def only_changes(layout, said, parent):
    """The words of a dump whose parent has those pages; with it, how many stay in the parent."""
    out, kept = [], 0
    for command, flags, pages, vaddr, id_, data in commands(layout, said):
        if command != wire.ADD_F:
            out.append(wire.header(layout, command, pages, vaddr, id_, flags))
            continue
        for i in range(pages):
            page, at = bytes(data[i * PAGE:(i + 1) * PAGE]), vaddr + i * PAGE
            same = parent.get((name_of(id_), at)) == page
            kept += same
            # Both words that there are for it.
            how = (wire.HOLE, 0) if same and i % 2 else \
                (wire.ADD_F, flags & wire.LAZY | 1) if same else (wire.ADD_F, flags)
            out.append(wire.header(layout, how[0], 1, at, id_, how[1]) + (b"" if same else page))
    return b"".join(out), kept


def dump_recorded(c, receiver, directory, *options, version=None):
    """A whole dump into a directory of its own: what was said."""
    directory.mkdir()
    c.images = directory
    server = receiver(directory, c.work).start()
    recorder = Recorder(server.port)
    dump_to(c, server, *options, port=recorder.port, version=version)
    recorder.join(timeout=10)
    return recorder.said


@pytest.mark.parametrize("layout,version", [(32, None), (24, "4.1")])
@pytest.mark.parametrize("dedup", [False, True], ids=["", "dedup"])
def test_what_did_not_change_stays_in_the_parent(case, receiver, layout, version, dedup):
    c = started(case, "content_big", 16)
    top = c.dir / "pre"
    dump_recorded(c, receiver, top, "--leave-running", version=version)
    (c.home / "change").touch()
    processes.wait_for((c.home / "changed").exists, 20, "the program to change its memory")
    whole = dump_recorded(c, receiver, c.dir / "whole", version=version)
    said, kept = only_changes(layout, whole, pages_of(top))
    assert 3000 < kept < 4096
    parents = top / f"pages-{0x10001}.img"
    before = parents.stat().st_blocks

    # Everything of the last dump but its pages, and the changes instead.
    c.images = c.dir / "images"
    for path in (c.dir / "whole").iterdir():
        if not path.name.startswith("pa"):
            shutil.copy(path, c.images)
    os.symlink("../pre", c.images / "parent")
    server = receiver(c.images, c.work).start(*(["--auto-dedup"] if dedup else []))
    answers = replay(server, said)
    assert server.wait() == 0, server.log()
    assert answers == b"\1" + bytes(4)
    anew = sum(p.stat().st_size for p in c.images.glob("pages-*.img"))
    assert anew // PAGE == len(pages_of(c.dir / "whole")) - kept
    punched = (before - parents.stat().st_blocks) * 512
    assert 0.8 * anew < punched <= anew if dedup else punched == 0
    shutil.rmtree(c.dir / "whole")
    restore_eagerly(c, version)
