# SPDX-License-Identifier: GPL-2.0-or-later
"""`criu-lazy-pages status` beside managers that wait, run, hang and die. The socket itself is
tested in unit/test_control.c."""

import json
import os
import pty
import re
import signal
import socket
import subprocess

import pytest

from harness import paths, processes

COMMAND = paths.BUILD / "criu-lazy-pages"

pytestmark = pytest.mark.skipif(paths.manager_name() != "ours", reason="about our own command")


@pytest.fixture(autouse=True)
def rundir(monkeypatch, tmp_path):
    """Managers of other tests stay out of sight."""
    monkeypatch.setenv("CRIU_LAZY_PAGES_RUNDIR", str(tmp_path / "run"))
    return tmp_path / "run"


def status(*words):
    return subprocess.run([COMMAND, "status", *map(str, words)], stdin=subprocess.DEVNULL,
                          text=True, capture_output=True, timeout=30, check=False)


def documents(*words):
    p = status("--json", *words)
    assert p.returncode == 0, p.stderr
    return [json.loads(line) for line in p.stdout.splitlines()]


@pytest.fixture
def held_case(case):
    """Restored, waiting for its word to go, nearly all memory owed."""
    c = case("content_heap")
    c.start()
    c.dump()
    c.serve(env={"LAZY_PAGES_TEST_BACKGROUND_DELAY_MS": "60000"})
    # pylint: disable=protected-access
    pidfile = c.work / "restored.pid"
    assert c._call(c._command("restore", "--lazy-pages", "-d", "--pidfile", pidfile), 60) == 0
    c.root = int(pidfile.read_text())
    processes.wait_for(lambda: documents()[0]["state"] == "running", 10, "the restore to be over")
    return c


def finish(c, rundir):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(rundir / f"{c.manager.pid}.sock"))
        s.send(b"finish\n")
        assert json.loads(s.makefile().readline()) == {"finishing": True}
    (c.home / "go.new").write_bytes(b"r")
    (c.home / "go.new").rename(c.home / "go")
    c.finish()


def test_no_manager_is_exit_status_1(rundir):
    p = status()
    assert (p.returncode, p.stdout) == (1, "")
    assert str(rundir) in p.stderr


@pytest.mark.parametrize("words", [["x"], ["0"], ["1", "2"], ["--nonsense"], ["--watch=x"],
                                   ["--watch=0"], ["1", "-W", "/"], ["-W", "/nonexistent"]])
def test_mistakes_are_exit_status_2(words):
    p = status(*words)
    assert p.returncode == 2
    assert p.stderr and not p.stdout


def test_document_says_where_the_memory_is(held_case, rundir):
    c = held_case
    (d,) = documents()
    assert d["version"] == 1
    assert d["pid"] == c.manager.pid
    assert (d["images"], d["work"]) == (str(c.images), str(c.work))
    (task,) = d["tasks"]
    assert (task["pid"], task["real_pid"], task["state"]) == (c.root, c.root, "lazy")
    placed = sum(d["pages"][k] for k in ("fault", "neighbour", "background"))
    settled = placed + d["pages"]["already_there"] + d["pages"]["forgiven"]
    assert 16000 < task["pages_left"] < task["pages_total"]
    assert task["pages_total"] - task["pages_left"] == settled
    assert d["bytes"] == placed * 4096
    assert d["faults"] > 0
    assert sum(d["latency"]["buckets"]) == d["latency"]["count"] > 0
    assert d["latency"]["max_ns"] <= d["latency"]["sum_ns"] < 60e9
    finish(c, rundir)


def test_one_line_a_manager(held_case, rundir):
    c = held_case
    p = status()
    assert p.returncode == 0
    assert re.fullmatch(rf"{c.manager.pid} running \d+% \d+\.\d MiB in, 6[34]\.\d MiB to come, "
                        rf"\d+\.\d MiB/s, 1 tasks, \d+ faults, {c.images}\n", p.stdout), p.stdout
    finish(c, rundir)


def test_a_manager_is_found_by_its_pid_its_tasks_pid_and_its_work_directory(held_case, rundir):
    c = held_case
    for words in ([c.manager.pid], [c.root], ["-W", c.work]):
        assert [d["pid"] for d in documents(*words)] == [c.manager.pid]
    for words in ([os.getpid()], ["-W", c.images]):
        assert status(*words).returncode == 1
    finish(c, rundir)


SAMPLE = re.compile(r'(?P<name>[a-z_]+)\{(?P<labels>(?:[a-z]+="(?:[^"\\]|\\.)*",?)+)\} '
                    r'(?P<value>\d+(?:\.\d+)?)')


def test_openmetrics_is_well_formed_and_says_the_same(held_case, rundir):
    c = held_case
    (d,) = documents()
    p = status("--openmetrics")
    assert p.returncode == 0
    assert p.stdout.endswith("\n# EOF\n")
    types, values, family = {}, {}, None
    for line in p.stdout.splitlines()[:-1]:
        if line.startswith("# TYPE "):
            _, _, family, kind = line.split(" ")
            assert family not in types  # one block a family
            types[family] = kind
        elif not line.startswith(f"# HELP {family} "):
            m = SAMPLE.fullmatch(line)
            assert m and m["name"].startswith(family), line
            suffixes = {"counter": ["_total"], "gauge": [""],
                        "histogram": ["_bucket", "_count", "_sum"]}[types[family]]
            assert m["name"][len(family):] in suffixes, line
            assert f'manager="{c.manager.pid}",images="{c.images}"' in m["labels"]
            values.setdefault(m["name"], []).append((m["labels"], float(m["value"])))
    ours = "criu_lazy_pages_"
    assert values[ours + "pages_left"][0][1] == d["tasks"][0]["pages_left"]
    assert values[ours + "bytes_total"][0][1] == d["bytes"]
    assert values[ours + "faults_total"][0][1] == d["faults"]
    outcomes = {re.search('outcome="(.*)"', labels)[1]: v
                for labels, v in values[ours + "pages_total"]}
    assert outcomes == {k: v for k, v in d["pages"].items() if k != "zero"}
    buckets = [v for _, v in values[ours + "stall_seconds_bucket"]]
    edges = [re.search('le="(.*)"', labels)[1]
             for labels, _ in values[ours + "stall_seconds_bucket"]]
    assert buckets == sorted(buckets)
    assert [float(x) for x in edges] == sorted(float(x) for x in edges) and edges[-1] == "+Inf"
    assert buckets[-1] == values[ours + "stall_seconds_count"][0][1] == d["latency"]["count"]
    finish(c, rundir)


def read_some(fd):
    try:
        return os.read(fd, 65536)
    except OSError:
        return b""  # the other side of a terminal is closed


def test_watch_draws_a_bar_until_the_manager_has_ended(held_case, rundir):
    c = held_case
    terminal, other = pty.openpty()
    p = subprocess.Popen([COMMAND, "status", "--watch=0.05"], stdin=other, stdout=other,
                         stderr=other)
    os.close(other)
    first = b""
    while first.count(b"\n") < 3:
        first += read_some(terminal)
    finish(c, rundir)
    assert p.wait(timeout=20) == 0
    os.close(terminal)
    line = rf"{c.manager.pid} running \[#?-{{29,30}}\] \d%.*\r\n"
    # Drawn over, not below.
    assert re.match(line + r"\x1b\[1A\x1b\[J" + line, first.decode()), first


def test_watch_into_a_file_is_a_line_a_look(held_case, rundir):
    c = held_case
    p = subprocess.Popen([COMMAND, "status", "--watch=0.05"], stdout=subprocess.PIPE, text=True)
    first = [p.stdout.readline(), p.stdout.readline()]
    finish(c, rundir)
    rest = p.communicate(timeout=20)[0]
    assert p.returncode == 0
    for line in first:
        assert line.startswith(f"{c.manager.pid} running [")
    assert "\x1b" not in rest


def test_a_manager_that_hangs_is_named_and_the_others_are_shown(case, rundir):
    a, b = case("content_heap"), case("content_heap")
    for c in (a, b):
        c.start()
        c.dump()
        c.serve()
    for pid in processes.descendants(a.manager.pid) + [a.manager.pid]:
        os.kill(pid, signal.SIGSTOP)
    p = status()
    assert p.returncode == 0
    assert p.stdout.startswith(f"{b.manager.pid} waiting")
    assert len(p.stdout.splitlines()) == 1
    assert f"Warn: manager {a.manager.pid}:" in p.stderr
    for pid in processes.descendants(a.manager.pid) + [a.manager.pid]:
        os.kill(pid, signal.SIGCONT)
    for c in (a, b):
        c.restore()
        c.finish()
    assert os.listdir(rundir) == []


def test_a_killed_managers_socket_is_passed_over_and_removed(case, rundir):
    c = case("content_heap")
    c.start()
    c.dump()
    c.serve()
    processes.kill_tree(keep=[])
    c.manager.wait(timeout=10)
    assert os.listdir(rundir) == [f"{c.manager.pid}.sock"]
    assert status().returncode == 1
    assert os.listdir(rundir) == []
