# SPDX-License-Identifier: GPL-2.0-or-later
"""CRIU's images, as far as tests rewrite them: records, and the entries of a page map."""

import os
import shutil
import struct

MAGIC_COMMON = 0x54564319
MAGIC_PAGEMAP = 0x56084025
LAZY, PRESENT = 2, 4
PAGE = 4096


def read_records(path):
    """The records' bytes behind the two magics."""
    data = path.read_bytes()
    at, records = 8, []
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        records.append(data[at + 4:at + 4 + length])
        at += 4 + length
    return records


def write_records(path, magic, records):
    with open(path, "wb") as f:
        f.write(struct.pack("<II", MAGIC_COMMON, magic))
        for r in records:
            f.write(struct.pack("<I", len(r)) + r)


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(record, at):
    """(the number at that place of the bytes, the place behind it)"""
    value = shift = 0
    while True:
        byte = record[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def numbers(record):
    """{field: value} of a record that has only varint fields."""
    fields, at = {}, 0

    def take():
        nonlocal at
        value, at = read_varint(record, at)
        return value
    while at < len(record):
        key = take()
        assert key & 7 == 0, "not a number"
        fields[key >> 3] = take()
    return fields


def pagemap_entry(vaddr, pages, flags=LAZY | PRESENT):
    """Both counts, so that every version can read it."""
    return (b"\x08" + varint(vaddr) + b"\x10" + varint(pages) + b"\x20" + varint(flags) +
            b"\x28" + varint(pages))


def insert_pages(images, pid, ranges, contents):
    """Adds lazy ranges (address, pages) to a task's page map, in the place where they belong.

    contents yields (address, bytes of a page) for pages in them; all others are holes of the pages
    file. No range may overlap what is there.
    """
    path = images / f"pagemap-{pid}.img"
    head, *entries = read_records(path)
    pages = images / f"pages-{numbers(head)[1]}.img"
    old = []
    for e in entries:
        n = numbers(e)
        assert not n.get(3) and n.get(4, PRESENT) & PRESENT, "not all pages are here"
        old.append((n[1], n.get(5) or n[2], e))
    merged = sorted([*old, *((vaddr, count, None) for vaddr, count in ranges)])
    offset = source = 0
    where, records = {}, [head]
    with open(pages, "rb") as was, open(images / "pages.new", "wb") as new:
        for vaddr, count, record in merged:
            if record is None:
                records.append(pagemap_entry(vaddr, count))
                where[vaddr] = offset
            else:
                records.append(record)
                was.seek(source)
                new.seek(offset)
                new.write(was.read(count * PAGE))
                source += count * PAGE
            offset += count * PAGE
        for address, data in contents:
            new.seek(where[address])
            new.write(data)
        new.truncate(offset)
    (images / "pages.new").rename(pages)
    write_records(path, MAGIC_PAGEMAP, records)


MAGIC_MM = 0x57492820
FIELD_VMAS = 14


def fields(record):
    """(field, its bytes with the key) of a record, in order; numbers and submessages only."""
    at = 0

    def take():
        nonlocal at
        value, at = read_varint(record, at)
        return value
    while at < len(record):
        start = at
        key = take()
        length = take()
        assert key & 7 in (0, 2), "neither a number nor a submessage"
        at += length if key & 7 == 2 else 0
        yield key >> 3, record[start:at]


def mapping_start(vma):
    """The address in the bytes of a field of mappings, which comes first in them."""
    assert vma[0] == FIELD_VMAS << 3 | 2
    at = 1
    while vma[at] > 127:
        at += 1
    first = next(fields(vma[at + 1:]))
    return numbers(first[1])[1]


def add_mapping(images, pid, start, end):
    """Private anonymous memory that can be read and written, in its place among the others."""
    path = images / f"mm-{pid}.img"
    (record,) = read_records(path)
    body = b"".join(bytes([number << 3]) + varint(value) for number, value in (
        (1, start), (2, end), (3, 0), (4, 0), (5, 3), (6, 0x22), (7, 1 | 1 << 9)))
    body += b"\x40" + varint(1)  # fd, a signed -1
    new = bytes([FIELD_VMAS << 3 | 2]) + varint(len(body)) + body
    parts = list(fields(record))
    vmas = [p for f, p in parts if f == FIELD_VMAS] + [new]
    others = [p for f, p in parts if f != FIELD_VMAS]
    vmas.sort(key=mapping_start)
    write_records(path, MAGIC_MM, [b"".join(others + vmas)])


def entries_of(path):
    """The id of the pages file, and (address, pages, flags) of every entry."""
    head, *records = read_records(path)
    entries = []
    for r in records:
        n = numbers(r)
        flags = n.get(4, 1 if n.get(3) else PRESENT)
        entries.append((n[1], n.get(5) or n[2], flags, r))
    return head, entries


def lazy_only(record):
    """An entry as `dump --lazy-pages` writes it: the same fields, but not PRESENT."""
    n = numbers(record)
    n[4] = LAZY
    return b"".join(varint(field << 3) + varint(n[field]) for field in sorted(n))


def strip(src, dst):
    """Copies an image directory as it is where memory comes from elsewhere.

    Entries that are LAZY and PRESENT become LAZY alone, and their bytes are left out: what
    `criu dump --lazy-pages` would have written. The counts keep the fields they are in, which is
    what tells the layout of the server's headers.
    """
    dst.mkdir()
    pagemaps = set(src.glob("pagemap-*.img")) - set(src.glob("pagemap-shmem-*.img"))
    bytes_of = {f"pages-{numbers(read_records(p)[0])[1]}.img": p for p in pagemaps}
    for path in src.iterdir():
        if path not in pagemaps and path.name not in bytes_of:
            shutil.copy(path, dst / path.name)
    for name, path in bytes_of.items():
        head, entries = entries_of(path)
        records, offset = [head], 0
        with open(src / name, "rb") as was, open(dst / name, "wb") as new:
            for _, count, flags, record in entries:
                lazy = flags & (LAZY | PRESENT) == LAZY | PRESENT
                records.append(lazy_only(record) if lazy else record)
                if flags & PRESENT and not lazy:
                    was.seek(offset)
                    new.write(was.read(count * PAGE))
                offset += count * PAGE if flags & PRESENT else 0
        write_records(dst / path.name, MAGIC_PAGEMAP, records)


class LazyBytes:
    """The lazy pages of an image directory: find(pid, address) for a server that a test plays."""

    def __init__(self, images):
        self.files, self.ranges = {}, {}
        for path in images.glob("pagemap-[0-9]*.img"):
            head, entries = entries_of(path)
            pid = int(path.stem.split("-")[1])
            self.files[pid] = os.open(images / f"pages-{numbers(head)[1]}.img", os.O_RDONLY)
            offset, ranges = 0, []
            for vaddr, count, flags, _ in entries:
                if flags & LAZY:
                    ranges.append((vaddr, vaddr + count * PAGE, offset))
                offset += count * PAGE if flags & PRESENT else 0
            self.ranges[pid] = ranges

    def read(self, pid, vaddr, pages):
        """As many of these pages as one entry has; b"" where there is nothing lazy."""
        for start, end, offset in self.ranges.get(pid, ()):
            if start <= vaddr < end:
                size = min(pages * PAGE, end - vaddr)
                return os.pread(self.files[pid], size, offset + vaddr - start)
        return b""

    def close(self):
        for fd in self.files.values():
            os.close(fd)
        self.files = {}
