#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the golden images anew, with real CRIU: golden/make.py (as root, from anywhere).

  v42-tree  4.2: a root, a child, a stopped child, a zombie
  v42-lazy  4.2: "dump --lazy-pages", so that the pages' bytes are not there
  v41       4.1: the root alone, with the older count of pages

Only the images that the manager reads are kept. Chains of pre-dumps are not among them, because
they need a kernel with soft-dirty bits.
"""
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.join(HERE, "..", "..", "..")
KEEP = re.compile(r"(inventory|pstree|(core|mm|pagemap|pages)-\d+)\.img")


def real_criu(*which):
    return subprocess.run([TOP + "/scripts/real-criu", *which], check=True, text=True,
                          stdout=subprocess.PIPE).stdout.strip()


class Tree:
    def __init__(self, program, *args):
        self.process = subprocess.Popen([program, *args], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        start_new_session=True, cwd="/")
        self.pid = self.process.pid
        self.wait_for("ready")
        time.sleep(0.3)  # the children stop and die

    def wait_for(self, name):
        for _ in range(500):
            with open(f"/proc/{self.pid}/comm") as comm:
                if comm.read().strip() == name:
                    return
            time.sleep(0.01)
        sys.exit(f"{self.pid} is not {name}")

    def end(self):
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def criu(binary, action, tree, images, *args):
    os.makedirs(images, exist_ok=True)
    return [binary, action, "-t", str(tree.pid), "-D", images, "-o", f"{action}.log", "-v4", *args]


def run(*args):
    command = criu(*args)
    if subprocess.run(command).returncode:
        log = os.path.join(args[3], f"{args[1]}.log")
        sys.exit(" ".join(command) + " failed:\n" + open(log).read()[-3000:])


def keep(made, name):
    for directory, _, files in os.walk(os.path.join(made, name)):
        to = os.path.join(HERE, os.path.relpath(directory, made))
        shutil.rmtree(to, ignore_errors=True)
        os.makedirs(to)
        for f in files:
            path = os.path.join(directory, f)
            if KEEP.fullmatch(f) and os.path.lexists(path):
                shutil.copy2(path, to, follow_symlinks=False)


def make(made, program, v42, v41):
    for name, binary, *args in (("v42-tree", v42, "tree"), ("v41", v41)):
        tree = Tree(program, *args)
        run(binary, "dump", tree, f"{made}/{name}", "--leave-running")
        tree.end()

    tree = Tree(program)
    ready, told = os.pipe()
    dump = subprocess.Popen(criu(v42, "dump", tree, f"{made}/v42-lazy", "--lazy-pages",
                                 "--address", "127.0.0.1", "--port", "27411",
                                 "--status-fd", str(told)), pass_fds=[told])
    os.close(told)
    assert os.read(ready, 1) == b"\0"
    dump.kill()
    dump.wait()
    tree.end()


def reap_orphans():
    """Children of killed roots become ours: leave no zombies behind."""
    try:
        while os.waitpid(-1, 0):
            pass
    except ChildProcessError:
        pass


def main():
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
    with tempfile.TemporaryDirectory() as made:
        program = f"{made}/tree"
        subprocess.run(["gcc", "-Os", "-static", "-nostdlib", "-ffreestanding", "-fno-pie",
                        "-no-pie", "-fno-stack-protector", "-o", program, HERE + "/tree.c"],
                       check=True)
        make(made, program, real_criu(), real_criu("4.1"))
        for name in ("v42-tree", "v42-lazy", "v41"):
            keep(made, name)
    reap_orphans()


if __name__ == "__main__":
    sys.exit(main())
