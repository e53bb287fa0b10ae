# SPDX-License-Identifier: GPL-2.0-or-later
"""The rows of memory that comes from a page server: see bench_rows.py, bench_remote.py."""

import statistics

from bench_rows import (OURS, QUANTILES, STOCK, Row, Values, compared, drain_of, figure,
                        latencies, quantile)

PING, STREAM, STREAM_PLACED = "bare round trip", "bare stream", "bare stream and UFFDIO_COPY"
ONE_CLIENT = "ours, one client"
CROWD = 64       # clients at once
STARVED = 0.5    # of an equal share

# As in bench_rows.py; "kind" is one of bench_remote.KINDS, "way" is described there. Stock needs
# minutes where faults and the drain share its one connection: "stock_cap" seconds at most.
WORKLOADS = {
    "near-faults": {"kind": "remote", "mode": "random", "mib": 256, "way": "loopback",
                    "stock_cap": 300, "rows": "fault latency, remote"},
    "far-faults": {"kind": "remote", "mode": "random", "mib": 64, "way": "far",
                   "stock_cap": 300, "rows": "fault latency, remote"},
    "near-drain": {"kind": "remote", "mode": "idle", "mib": 1024, "way": "loopback",
                   "rows": "drain, remote"},
    "gigabit-drain": {"kind": "remote", "mode": "idle", "mib": 1024, "way": "gigabit",
                      "rows": "drain, remote"},
    "start": {"kind": "start", "mode": "idle", "mib": 8192, "way": "loopback",
              "rows": "page server start"},
    "crowd": {"kind": "crowd", "mode": "idle", "mib": 256, "way": "loopback",
              "rows": "page server fan-out"},
    "stalled": {"kind": "stalled", "mode": "idle", "mib": 256, "way": "far",
                "rows": "idle manager"},
}


class Bound(Row):
    """A line whose values themselves are bounded, every one of them."""

    def __init__(self, name, ours, other, most, unit):
        super().__init__(name, ours, other, f"<= {most:g} {unit}",
                         ours.median() / other.median() if ours and other else None)
        self.values, self.most = ours.values, most

    def verdict(self):
        if not self.values:
            return "no value"
        return "met" if max(self.values) <= self.most else "missed"


class Said(Values):
    """No figure, but why there is none."""

    def __init__(self, text):
        super().__init__([], "")
        self.text = text

    def __str__(self):
        return self.text


def rows_faults(prefix):
    def evaluate(runs, _):
        bare = figure(runs, PING, "us", lambda r: quantile(r["ping"], 0.5) / 1e3)
        waited = {name: figure(runs, OURS, "us", lambda r, q=q: quantile(r["stalled"], q) / 1e3
                               if r.get("stalled") else None) for name, q in QUANTILES}
        good = bool(bare and waited["p50"])
        rows = [Row(f"{prefix}: p50, beside a {PING}", waited["p50"], bare, "<= 1.3 of it",
                    waited["p50"].median() / bare.median() if good else None, 1.3),
                Row(f"{prefix}: p99, beside twice that + 100 us", waited["p99"],
                    Values([2 * v + 100 for v in bare.values], "us"), "<= 1",
                    waited["p99"].median() / (2 * bare.median() + 100) if good else None, 1)]
        return [*rows, *latencies(runs, prefix, {}),
                compared(f"{prefix}: drain meanwhile", drain_of(runs, OURS),
                         drain_of(runs, STOCK), None)]
    return evaluate


def rows_drain(prefix):
    def evaluate(runs, _):
        ours, rows = drain_of(runs, OURS), []
        for side, limit in ((STREAM, 0.9), (STREAM_PLACED, None)):
            bare = figure(runs, side, "ms", lambda r: r["ns"] / 1e6)
            rows.append(Row(f"{prefix}: beside a {side}", ours, bare,
                            f">= {limit} of its speed" if limit else "-",
                            bare.median() / ours.median() if bare and ours else None, limit, True))
        return [*rows, compared(prefix, ours, drain_of(runs, STOCK), None)]
    return evaluate


def rows_start(runs, _):
    failed = next((r["failed"] for r in runs.get(STOCK, ()) if "failed" in r), None)
    rows = []
    for name, key, scale, most, unit in (("listens after", "start_ns", 1e6, 50, "ms"),
                                         ("resident memory", "memory", 1 << 20, 64, "MiB")):
        side = {s: figure(runs, s, unit, lambda r, k=key, by=scale: r[k] / by if k in r else None)
                for s in (OURS, STOCK)}
        rows.append(Bound(f"page server start: {name}", side[OURS],
                          Said(failed) if failed else side[STOCK], most, unit))
    return rows


def rows_crowd(runs, _):
    def rate(side, get):
        return figure(runs, side, "MB/s", lambda r: get(r) / 1e6)

    def by_core(r):
        return r["bytes"] * 1e9 / (r["server_cpu_ns"] + r["client_cpu_ns"])
    many, one = rate(OURS, by_core), rate(ONE_CLIENT, by_core)
    slowest, fastest = rate(OURS, lambda r: r["slowest"]), rate(OURS, lambda r: r["fastest"])
    shares = [r["slowest"] * CROWD / r["bytes_per_s"] for r in runs.get(OURS, ())]
    total = rate(OURS, lambda r: r["bytes_per_s"]), rate(ONE_CLIENT, lambda r: r["bytes_per_s"])
    share = rate(OURS, lambda r: r["bytes_per_s"] / CROWD)
    return [Row(f"page server fan-out: {CROWD} clients / one, by core", many, one, ">= 0.9",
                many.median() / one.median() if many and one else None, 0.9, True),
            Row(f"page server fan-out: {CROWD} clients / one, in all", *total, "-",
                total[0].median() / total[1].median() if total[0] and total[1] else None),
            Row("page server fan-out: slowest client / an equal share", slowest, share,
                f"nobody starved: >= {STARVED:g}", statistics.median(shares) if shares else None,
                STARVED, True),
            Row("page server fan-out: slowest / fastest client", slowest, fastest, "-",
                slowest.median() / fastest.median() if slowest and fastest else None)]


def rows_stalled(runs, _):
    side = {s: figure(runs, s, "%", lambda r: 100 * r["idle"] if "idle" in r else None)
            for s in (OURS, STOCK)}
    return [Bound("idle manager: of a core", side[OURS], side[STOCK], 1, "%")]


EVALUATE = {
    "near-faults": rows_faults("fault latency, remote, loopback"),
    "far-faults": rows_faults("fault latency, remote, 10 ms"),
    "near-drain": rows_drain("drain, remote, loopback"),
    "gigabit-drain": rows_drain("drain, remote, 1 Gbit/s"),
    "start": rows_start, "crowd": rows_crowd, "stalled": rows_stalled,
}
