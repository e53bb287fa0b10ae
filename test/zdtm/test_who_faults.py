# SPDX-License-Identifier: GPL-2.0-or-later
"""Who touches owed memory: threads, the kernel on the task's behalf, other processes, a core dump.

Limits that the kernel sets, shown here:

- A core dump that is taken while pages are owed: the kernel never waits for a userfaultfd while it
  dumps core, so pages that have arrived are in it, right to the byte, and those that have not are
  zeros or holes.
- A read of /proc/PID/mem (and ptrace's PEEK) does not wait either: where a page is owed it gives
  EIO. process_vm_readv(2) waits and gives the page.
"""

import errno
import pathlib
import signal
import sys

import pytest

from harness import memory


def test_many_threads_on_one_page(case, held):
    case("who_threads_one_page").run(held=held)


def test_threads_all_over_one_area(case, held):
    case("who_threads_random").run(held=held)


def test_read_write_and_vmsplice_by_the_kernel(case, held):
    case("who_kernel_io").run(held=held)


def test_futexes_in_owed_memory(case, held):
    case("who_futex").run(held=held)


def test_signal_frame_on_an_owed_alternate_stack(case, held):
    case("who_signal_stack").run(held=held)


@pytest.mark.parametrize("way", ["mlockall", "mlock", "populate-read", "populate-write"])
def test_all_pages_asked_for_at_once(case, held, way):
    case("who_populate", way).run(held=held)


def test_io_uring_with_registered_buffers(case, held):
    case("who_io_uring").run(held=held)


def area_of(c):
    return tuple(map(int, (c.home / "area").read_text().split()))


def expected_page(c, address, start):
    if (address - start) // memory.PAGE % 4 == 3:
        return bytes(memory.PAGE)
    return memory.page(c.seed, address // memory.PAGE)


def look_from_outside(c, read):
    start, length = area_of(c)
    for i in range(0, length, 61 * memory.PAGE):
        got = read(c.root, start + i, 2 * memory.PAGE)
        expected = expected_page(c, start + i, start)
        if i + memory.PAGE < length:
            expected += expected_page(c, start + i + memory.PAGE, start)
        assert got[:len(expected)] == expected, f"at {start + i:#x}: {got[:16].hex()}..."


def lazily_restored(case, held, *arguments):
    c = case("who_outside", *arguments)
    c.start()
    c.dump()
    c.serve(held=held)
    c.restore()
    return c


def test_process_vm_readv_waits_for_the_page(case, held):
    c = lazily_restored(case, held)
    look_from_outside(c, memory.read_process_vm)
    (c.home / "looked").touch()
    c.finish()


def test_proc_mem_gives_the_right_bytes_or_eio(case, held):
    c = lazily_restored(case, held)
    start, length = area_of(c)
    for address in range(start, start + length, 61 * memory.PAGE):
        try:
            got = memory.read_proc_mem(c.root, address, memory.PAGE)
        except OSError as e:
            assert e.errno == errno.EIO
        else:
            assert got == expected_page(c, address, start), f"at {address:#x}"
    c.wait_manager()
    look_from_outside(c, memory.read_proc_mem)
    (c.home / "looked").touch()
    c.finish()


def test_another_process_writes(case, held):
    """Half a page from outside: the other half is still the image's."""
    c = lazily_restored(case, held)
    start, _ = area_of(c)
    whole = expected_page(c, start, start)
    assert memory.write_process_vm(c.root, start, b"x" * 2048) == 2048
    assert memory.read_proc_mem(c.root, start, memory.PAGE) == b"x" * 2048 + whole[2048:]
    memory.write_process_vm(c.root, start, whole[:2048])
    (c.home / "looked").touch()
    c.finish()


def test_faults_before_the_restore_has_finished(case, held):
    """CRIU's post-restore script reads the task's memory: the word comes only after it."""
    c = case("who_outside")
    c.start()
    c.dump()
    c.serve(held=held)
    script = c.dir / "script"
    script.write_text(f"""#!{sys.executable}
import os, sys
sys.path.insert(0, "{pathlib.Path(memory.__file__).parent}")
import memory
if os.environ["CRTOOLS_SCRIPT_ACTION"] == "post-restore":
    start = int(open("{c.home}/area").read().split()[0])
    pages = memory.read_process_vm(int(os.environ["CRTOOLS_INIT_PID"]), start, 64 * memory.PAGE)
    open("{c.dir}/early", "wb").write(pages)
""", encoding="utf-8")
    script.chmod(0o755)
    c.restore("--action-script", script)
    start, _ = area_of(c)
    early = (c.dir / "early").read_bytes()
    assert len(early) == 64 * memory.PAGE
    for i in range(0, len(early), memory.PAGE):
        assert early[i:i + memory.PAGE] == expected_page(c, start + i, start), f"page {i // 4096}"
    (c.home / "looked").touch()
    c.finish()


def test_core_dump_while_lazy_holds_what_has_arrived(case, held):
    pattern = pathlib.Path("/proc/sys/kernel/core_pattern").read_text(encoding="ascii").strip()
    if pattern.startswith("|") or "/" in pattern:
        pytest.skip(f"core dumps go to {pattern}, not to the directory of the program")
    c = lazily_restored(case, held, "core")
    c.wait_exit(expected=-signal.SIGABRT)
    c.wait_manager()
    c.check_log()
    start, length = area_of(c)
    (core,) = c.home.glob("core*")
    found = arrived = 0
    for address, _, data in memory.core_segments(core):
        for at in range(max(address, start), min(address + len(data), start + length), 4096):
            got = data[at - address:at - address + memory.PAGE]
            expected = expected_page(c, at, start)
            touched = at < start + length // 4
            assert got == expected or (not touched and not any(got)), f"page at {at:#x}"
            found += 1
            arrived += got == expected and any(got)
    assert found == length // memory.PAGE
    assert arrived >= found // 4 * 3 // 4
    # What is said above of a core dump must be so: with everything held, something is not in it.
    if c.held:
        assert arrived < found * 3 // 4
