# SPDX-License-Identifier: GPL-2.0-or-later
"""What the benchmark leaves: a markdown page, a JSON file, and a plot drawn without any library."""

import json
from xml.sax.saxutils import escape

import bench_rows as rows

COLOURS = {rows.OURS: "#1f6fb2", rows.STOCK: "#d0812b"}


def markdown(about, table, all_runs, failures):
    out = [f"# Benchmark, {about['date']}", ""]
    out += [f"* {key}: {value}" for key, value in about.items() if key != "date"]
    out += ["", "| what | ours | stock, or the other | ratio | target | verdict |",
            "|---|---|---|---|---|---|"]
    for r in table:
        ratio = "-" if r.ratio is None else f"{r.ratio:.2f}" if r.ratio >= 0.1 else f"{r.ratio:.3f}"
        out.append(f"| {r.name} | {r.ours} | {r.other} | {ratio} | {r.target} | {r.verdict()} |")
    out += ["", "Medians, with the least and the most in brackets. Every run checked every page "
            "that it restored or got."]
    if rows.others(all_runs).median() > 100 * rows.NOISY:
        out += ["", "The machine was NOT quiet. Figures of different rows, or of this page and "
                "another, cannot be compared; ratios are loose."]
    out += where_it_ran(all_runs)
    if failures:
        out += ["", "## Runs that were not right", ""] + [f"* {f}" for f in failures]
    return "\n".join(out) + "\n"


def where_it_ran(all_runs):
    """Share of the looks at which a thread was runnable, by CPU; and CPU time of the manager."""
    out = ["", "Which CPUs did what: of the looks (every 20 ms of the drain), how many found the "
           "thread running or ready on that CPU.", "",
           "| work | side | manager's CPU s | thread: looks by CPU |", "|---|---|---|---|"]
    for name, sides in all_runs.items():
        for side in (rows.OURS, rows.STOCK):
            runs = [r for r in sides.get(side, ()) if "ran" in r]
            seen = {}
            for run in runs:
                for thread, cpu, times in run["ran"]:
                    by_cpu = seen.setdefault(thread, {})
                    by_cpu[cpu] = by_cpu.get(cpu, 0) + times
            text = "; ".join(f"{thread} " + ", ".join(f"cpu{c} {n}" for c, n in sorted(b.items()))
                             for thread, b in sorted(seen.items()))
            cpu = rows.figure(sides, side, "s", lambda r: r["manager_cpu_ns"] / 1e9
                              if "manager_cpu_ns" in r else None)
            if runs:
                out.append(f"| {name} | {side} | {cpu} | {text} |")
    return out


def histogram(runs):
    """How many stalled touches took 2^i to 2^(i+1) nanoseconds."""
    buckets = [0] * 33
    for run in runs:
        for ns in run.get("stalled", ()):
            buckets[ns.bit_length() - 1] += 1
    return buckets


def results(about, table, all_runs, failures):
    compact = {}
    for name, sides in all_runs.items():
        for side, runs in sides.items():
            kept = []
            for run in runs:
                long = ("lazy", "resident", "stalled", "ping")
                one = {k: v for k, v in run.items() if k not in long}
                for key in ("stalled", "ping"):
                    if key in run:
                        one[key] = {q: rows.quantile(run[key], x) for q, x in rows.QUANTILES}
                        one[key]["count"] = len(run[key])
                        one[key]["sum"] = sum(run[key])
                kept.append(one)
            entry = {"runs": kept}
            if any("stalled" in r for r in runs):
                entry["stalled_log2_ns"] = histogram(runs)
            compact.setdefault(name, {})[side] = entry
    lines = [{"name": r.name, "ours": r.ours, "other": r.other, "ratio": r.ratio,
              "target": r.target, "verdict": r.verdict()} for r in table]
    return json.dumps({"about": about, "rows": lines, "workloads": compact,
                       "failures": failures}, indent=1) + "\n"


class Drawing:
    """SVG, as text."""

    def __init__(self, width):
        self.width, self.height, self.parts = width, 0, []

    def text(self, x, y, words, size=12, anchor="start"):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" '
                          f'text-anchor="{anchor}">{escape(words)}</text>')

    def box(self, x, y, width, height, colour, opacity=1):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
                          f'height="{height:.1f}" fill="{colour}" fill-opacity="{opacity}"/>')

    def line(self, x1, y1, x2, y2, colour="#888", width=1):
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
                          f'stroke="{colour}" stroke-width="{width}"/>')

    def svg(self):
        return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" '
                f'height="{self.height:.0f}" font-family="sans-serif">\n'
                f'<rect width="100%" height="100%" fill="white"/>\n'
                + "\n".join(self.parts) + "\n</svg>\n")


def draw_ratios(d, table):
    left, right, most = 380, d.width - 70, 2.5
    d.text(10, 24, "Ratios, and the line that they should keep to", 16)
    y = 40
    for r in table:
        if r.ratio is None:
            continue
        good = r.verdict() != "missed"
        d.text(left - 8, y + 12, r.name, 11, "end")
        length = min(r.ratio, most) / most * (right - left)
        d.box(left, y + 1, max(length, 1), 14, COLOURS[rows.OURS] if good else "#b03030")
        d.text(left + length + 4, y + 12, f"{r.ratio:.2f}" if r.ratio >= 0.1 else f"{r.ratio:.3f}",
               11)
        if r.limit:
            x = left + min(r.limit, most) / most * (right - left)
            d.line(x, y - 1, x, y + 17, "#111", 2)
        y += 20
    d.height = y + 20


def draw_histogram(d, name, sides):
    counts = {s: histogram(sides.get(s, ())) for s in (rows.OURS, rows.STOCK)}
    used = [i for c in counts.values() for i, n in enumerate(c) if n]
    if not used:
        return
    first, last = min(used), max(used)
    left, right, top, tall = 60, d.width - 30, d.height + 40, 150
    step = (right - left) / (last - first + 1)
    d.text(10, d.height + 24, f"Stalled first touches, {name}: share by how long they waited", 16)
    most = max(n / (sum(c) or 1) for c in counts.values() for n in c)
    for number, (side, c) in enumerate(counts.items()):
        for i in range(first, last + 1):
            share = c[i] / (sum(c) or 1)
            tall_here = share / most * tall
            d.box(left + (i - first) * step + number * step * 0.4 + step * 0.1,
                  top + tall - tall_here, step * 0.4, tall_here, COLOURS[side])
        d.box(right - 190 + number * 90, top, 12, 12, COLOURS[side])
        d.text(right - 172 + number * 90, top + 11, side)
    d.line(left, top + tall, right, top + tall)
    for i in range(first, last + 1):
        d.text(left + (i - first) * step, top + tall + 16, f"{rows.number((1 << i) / 1e3)} us", 9,
               "middle")
    d.height = top + tall + 30


def plot(table, all_runs):
    d = Drawing(900)
    draw_ratios(d, table)
    for name in ("busy", "saturated", "near-faults", "far-faults"):
        if name in all_runs:
            draw_histogram(d, name, all_runs[name])
    return d.svg()
