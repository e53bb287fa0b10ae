# SPDX-License-Identifier: GPL-2.0-or-later
"""A runc container with a Redis in it, and hosts that it can live on.

    host = Host(directory, namespace)   # a network namespace, with a runc of its own
    host.run()                          # Redis in a container; host.connect() is a connection to it
    checkpoint = host.checkpoint(...)   # Popen
    other.restore(images, ...)          # Popen

A host is a directory (bundle, images, logs), a --root of runc and a network namespace, in which the
container is as well. Root of the container: redis-server, its libraries, and nothing else.
"""

import json
import os
import re
import shutil
import socket
import subprocess

from . import paths

NAME = "redis"
PORT = 6379
ARGUMENTS = ["/usr/bin/redis-server", "--port", str(PORT), "--bind", "0.0.0.0", "--save", "",
             "--appendonly", "no", "--protected-mode", "no"]


def can_run():
    """What is missing for any of this, "" when nothing is."""
    missing = [name for name in ("runc", "redis-server") if not shutil.which(name)]
    return f"no {', '.join(missing)} here" if missing else ""


def make_root(root):
    """redis-server and what ldd says it needs."""
    server = os.path.realpath(shutil.which("redis-server"))
    out = subprocess.run(["ldd", server], check=True, stdout=subprocess.PIPE, text=True).stdout
    for path in re.findall(r"(/\S+) \(0x", out):
        target = root / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (root / "usr/bin").mkdir(parents=True, exist_ok=True)
    shutil.copy(server, root / "usr/bin/redis-server")
    for name in ("proc", "dev", "tmp", "sys", "etc"):
        (root / name).mkdir()


def make_bundle(bundle, criu_options):
    """runc's own idea of a container, without terminal, network namespace and limits."""
    make_root(bundle / "rootfs")
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    path = bundle / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    process, linux = config["process"], config["linux"]
    process.update(terminal=False, args=ARGUMENTS)
    del process["rlimits"]
    config["root"]["readonly"] = False
    linux["namespaces"] = [n for n in linux["namespaces"] if n["type"] != "network"]
    config["mounts"] = [m for m in config["mounts"]
                        if m["destination"] in ("/proc", "/dev", "/dev/pts", "/dev/shm")]
    options = bundle / "criu.conf"
    options.write_text(criu_options, encoding="utf-8")
    config["annotations"] = {"org.criu.config": str(options)}
    path.write_text(json.dumps(config, indent=1), encoding="utf-8")


class Host:
    def __init__(self, directory, namespace, criu=None, criu_options=""):
        """criu is what runc finds under that name; the real one unless told otherwise."""
        self.dir, self.namespace = directory, namespace
        self.images, self.work, self.bundle = (directory / n for n in ("images", "work", "bundle"))
        self.address = namespace.address
        bin_dir = directory / "bin"
        for d in (self.images, self.work, self.bundle, bin_dir):
            d.mkdir(parents=True)
        (bin_dir / "criu").symlink_to(criu or paths.real_criu())
        self.environ = dict(os.environ, PATH=f"{bin_dir}:{os.environ['PATH']}")
        make_bundle(self.bundle, criu_options)
        self.name = f"{NAME}-{directory.name}-{os.getpid()}"

    def popen(self, command, **more):
        with open(self.dir / "out", "ab") as out:
            return subprocess.Popen([*self.namespace.prefix, *map(str, command)], cwd=self.dir,
                                    stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                    env=self.environ, start_new_session=True, **more)

    def runc(self, *words, **more):
        return self.popen(["runc", "--root", self.dir / "runc", "--log", self.dir / "runc.log",
                           *words], **more)

    def run(self):
        # stdin, stdout, stderr: those of runc, and there they must be /dev/null, which runc opens
        # again inside.
        done = subprocess.run(
            [*self.namespace.prefix, "runc", "--root", self.dir / "runc", "--log",
             self.dir / "runc.log", "run", "-d", "--bundle", self.bundle, self.name],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=self.environ, cwd=self.dir, timeout=60, check=False)
        assert done.returncode == 0, f"runc run: {self.tail('runc.log')}"

    def checkpoint(self, *options, **more):
        return self.runc("checkpoint", "--image-path", self.images, "--work-path", self.work,
                         *options, self.name, **more)

    def restore(self, *options):
        return self.runc("restore", "-d", "--bundle", self.bundle, "--image-path", self.images,
                         "--work-path", self.work, *options, self.name)

    def pid(self):
        state = json.loads((self.dir / "runc" / self.name / "state.json").read_text("utf-8"))
        return state["init_process_pid"]

    def connect(self, timeout=5):
        s = self.namespace.socket()
        s.settimeout(timeout)
        s.connect(("127.0.0.1", PORT))
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def tail(self, *names, lines=15):
        text = []
        for name in names:
            path = self.dir / name
            if path.exists():
                text += [f"-- {path}", *path.read_text(errors="replace").splitlines()[-lines:]]
        return "\n".join(text)

    def close(self):
        """No container, no process, no cgroup."""
        self.runc("delete", "--force", self.name).wait(timeout=30)
