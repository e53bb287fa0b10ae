# SPDX-License-Identifier: GPL-2.0-or-later
"""The rows of the table: what is restored, which figures follow from the runs, what is aimed at."""

import os
import statistics

OURS, STOCK = "ours", "stock"
FILE_LOOP, BUFFER_LOOP = "bare loop, page cache", "bare loop, hot buffer"
THREADS = 2            # of the manager by default, and so of the bare loop
LOOP_PIECE_KIB = 256   # the manager's largest slice
FORKS = 200
NOISY = 0.25           # share of the CPUs that others use, above which the page says so
QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1))

# Arguments of Workload. "rows" are words that --only finds it by, too.
WORKLOADS = {
    "one": {"mode": "idle", "mib": 1024, "rows": "drain, one range"},
    "many": {"mode": "idle", "mib": 512, "stride": 2, "rows": "drain, many ranges"},
    "half": {"mode": "idle", "mib": 256, "stride": 2, "rows": "drain, many ranges"},
    "busy": {"mode": "random", "mib": 512, "rows": "drain, busy task; fault latency, local"},
    "saturated": {"mode": "random", "mib": 512, "load": 2 * (os.cpu_count() or 1),
                  "rows": "saturated machine"},
    "fork": {"mode": "forks", "mib": 1024, "count": FORKS, "rows": "fork while lazy"},
    "million": {"mode": "idle", "mib": 8192, "stride": 2, "memory": True,
                "rows": "one million ranges"},
}


class Values:
    """A figure of one side: a value for each run."""

    def __init__(self, values, unit):
        self.values, self.unit = [v for v in values if v is not None], unit

    def __bool__(self):
        return bool(self.values)

    def median(self):
        return statistics.median(self.values) if self.values else 0

    def __str__(self):
        if not self.values:
            return "-"
        texts = [number(v) for v in (self.median(), min(self.values), max(self.values))]
        spread = f" ({texts[1]}-{texts[2]})" if len(self.values) > 1 else ""
        return f"{texts[0]} {self.unit}{spread}"


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


class Row:
    """One line. The ratio must be at most the limit, or at least when the limit is a floor."""

    def __init__(self, name, ours, other, target, ratio=None, limit=None, floor=False):
        self.name, self.ours, self.other, self.target = name, str(ours), str(other), target
        self.ratio, self.limit, self.floor = ratio, limit, floor

    def verdict(self):
        if self.limit is None:
            return "-"
        if self.ratio is None:
            return "no value"
        met = self.ratio >= self.limit if self.floor else self.ratio <= self.limit
        return "met" if met else "missed"


def compared(name, ours, other, limit, strict=False):
    target = f"{'<' if strict else '<='} {limit:g} of stock's" if limit else "-"
    ratio = ours.median() / other.median() if ours and other else None
    return Row(name, ours, other, target, ratio, limit)


def figure(runs, side, unit, get):
    return Values([get(r) for r in runs.get(side, ())], unit)


def drain_of(runs, side):
    return figure(runs, side, "ms",
                  lambda r: r["drain_ns"] / 1e6 if "drain_ns" in r else None)


def stalled(run):
    """Sorted nanoseconds of the first touches that had to wait."""
    least = 2000 + 3 * statistics.median(run["resident"])
    return sorted(ns for ns in run["lazy"] if ns > least)


def quantile(ordered, q):
    return ordered[min(len(ordered) - 1, int(len(ordered) * q))] if ordered else None


def latencies(runs, prefix, limits):
    rows = []
    for name, q in QUANTILES:
        side = {}
        for s in (OURS, STOCK):
            values = [quantile(r["stalled"], q) for r in runs.get(s, ()) if "stalled" in r]
            side[s] = Values([v / 1e3 for v in values if v is not None], "us")
        rows.append(compared(f"{prefix}: {name}", side[OURS], side[STOCK], limits.get(name),
                             strict=limits.get(name) == 1 and prefix == "fault latency, local"))
    share = {s: figure(runs, s, "%", lambda r: 100 * len(r["stalled"]) / len(r["lazy"])
                       if "stalled" in r and "lazy" in r else None) for s in (OURS, STOCK)}
    rows.append(compared(f"{prefix}: stalled first touches", share[OURS], share[STOCK], None))
    return rows


def rows_one(runs, _):
    ours = drain_of(runs, OURS)
    rows = [compared("drain, one range", ours, drain_of(runs, STOCK), 0.6)]
    for side, limit in ((FILE_LOOP, 0.8), (BUFFER_LOOP, None)):
        bare = figure(runs, side, "ms", lambda r: r["ns"] / 1e6)
        rows.append(Row(f"drain, one range: beside a {side}", ours, bare,
                        f">= {limit} of its speed" if limit else "-",
                        bare.median() / ours.median() if bare and ours else None, limit, True))
    return rows


def rows_busy(runs, _):
    return [compared("drain, busy task", drain_of(runs, OURS), drain_of(runs, STOCK), 0.5),
            *latencies(runs, "fault latency, local",
                       {"p50": 0.6, "p90": 0.6, "p99": 1, "p99.9": 1, "max": 1})]


def rows_saturated(runs, _):
    return [*latencies(runs, "saturated machine", {"p99": 1, "max": 1}),
            compared("saturated machine: drain", drain_of(runs, OURS), drain_of(runs, STOCK),
                     None)]


def rows_many(runs, all_runs):
    ours, stock = drain_of(runs, OURS), drain_of(runs, STOCK)
    rows = [compared("drain, many ranges", ours, stock, 0.05)]
    for side, limit in ((OURS, 2.2), (STOCK, None)):
        full, half = drain_of(runs, side), drain_of(all_runs.get("half", {}), side)
        if not half:
            continue
        rows.append(Row(f"drain, many ranges: {side}, all / half of them", full, half,
                        f"<= {limit} times the time" if limit else "-",
                        full.median() / half.median() if full and half else None, limit))
    return rows


def rows_million(runs, _):
    ours, stock = drain_of(runs, OURS), drain_of(runs, STOCK)
    ranges = next((r["ranges"] for r in runs.get(OURS, ()) if "ranges" in r), 0)
    limit = 64 + 40 * ranges / (1 << 20)
    over = [r["over_cap"] for r in runs.get(STOCK, ()) if "over_cap" in r]
    memory = {s: figure(runs, s, "MiB", lambda r: r["memory"] / (1 << 20) if "memory" in r
                        else None) for s in (OURS, STOCK)}
    completes = Row("one million ranges: drain", ours, f"> {over[0]:g} s" if over else stock,
                    "completes", ours.median() / stock.median() if ours and stock else None)
    completes.verdict = lambda: "met" if ours else "no value"
    held = memory[OURS]
    memory_row = Row("one million ranges: manager's memory", held, memory[STOCK],
                     f"<= {limit:.0f} MiB",
                     held.median() / memory[STOCK].median() if held and memory[STOCK] else None)
    memory_row.verdict = lambda: ("no value" if not held else
                                  "met" if max(held.values) <= limit else "missed")
    return [completes, memory_row]


def rows_fork(runs, _):
    rows = []
    for side, limit in ((OURS, 1.5), (STOCK, None)):
        mean = {k: figure(runs, side, "us", lambda r, k=k: statistics.fmean(r[k]) / 1e3
                          if k in r else None) for k in ("lazy", "resident")}
        rows.append(Row(f"fork while lazy: {side}, mean fork, lazy / resident", mean["lazy"],
                        mean["resident"], f"<= {limit} of resident" if limit else "-",
                        mean["lazy"].median() / mean["resident"].median()
                        if mean["lazy"] and mean["resident"] else None, limit))
    worst = {s: figure(runs, s, "us", lambda r: max(r["lazy"]) / 1e3 if "lazy" in r else None)
             for s in (OURS, STOCK)}
    rows += [compared("fork while lazy: slowest fork", worst[OURS], worst[STOCK], None),
             compared("fork while lazy: drain", drain_of(runs, OURS), drain_of(runs, STOCK), None)]
    return rows


EVALUATE = {"one": rows_one, "busy": rows_busy, "many": rows_many, "million": rows_million,
            "saturated": rows_saturated, "fork": rows_fork}


def table(evaluate, all_runs):
    """Every row that has runs, in the order of the evaluation."""
    return [row for name, rows in evaluate.items() if name in all_runs
            for row in rows(all_runs[name], all_runs)]


def others(all_runs):
    """How quiet the machine was: what runs found before they began."""
    return Values([100 * r["others"] for sides in all_runs.values() for runs in sides.values()
                   for r in runs if "others" in r], "%")
