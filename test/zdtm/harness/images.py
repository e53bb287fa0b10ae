# SPDX-License-Identifier: GPL-2.0-or-later
"""CRIU's images, as far as tests rewrite them: records, and the entries of a page map."""

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


def numbers(record):
    """{field: value} of a record that has only varint fields."""
    fields, at = {}, 0

    def take():
        nonlocal at
        value = shift = 0
        while True:
            byte = record[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
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
