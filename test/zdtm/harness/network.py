# SPDX-License-Identifier: GPL-2.0-or-later
"""Two machines' worth of network on one: two namespaces and a cable between them.

    with Network() as n:
        n.near.run("ip", "route"); [*n.near.prefix, "criu", ...]; n.near.address
        n.rate("100mbit"); n.lose(0.1); n.drop(); n.heal(); n.unplug(); n.plug()

A namespace lives as long as the sleeping process that holds it: it has no name and no mount, so
when that process is gone, also because a test was killed, so are devices, queues and rules.
"""

import ctypes
import os
import signal
import socket
import subprocess
import threading

from . import processes

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_the_tests():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Namespace:
    """A network namespace; address is that of its end of the cable."""

    def __init__(self):
        self.address = None
        self.holder = subprocess.Popen(
            ["unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL,
            preexec_fn=die_with_the_tests)
        self.path = f"/proc/{self.holder.pid}/ns/net"
        own = os.readlink("/proc/self/ns/net")
        processes.wait_for(lambda: os.readlink(self.path) != own, 10, "a network namespace")
        self.prefix = ["nsenter", f"--net={self.path}"]
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *words):
        done = subprocess.run([*self.prefix, *map(str, words)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=20, check=False)
        assert done.returncode == 0, f"{' '.join(map(str, words))}: {done.stdout}"
        return done.stdout

    def socket(self):
        """A TCP socket of this namespace, for anyone to use: only a thread goes there."""
        made = []

        def make():
            with open(self.path, "rb") as f:
                if LIBC.setns(f.fileno(), CLONE_NEWNET):
                    made.append(OSError(ctypes.get_errno(), f"setns {self.path}"))
                else:
                    made.append(socket.socket())
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        return made[0]

    def close(self):
        self.holder.kill()
        self.holder.wait(timeout=10)


class Network:
    """far is where the memory is, near where it is wanted."""

    DEVICE = "cable"

    def __init__(self):
        self.far = self.near = None
        try:
            self.far, self.near = Namespace(), Namespace()
            self.far.run("ip", "link", "add", self.DEVICE, "type", "veth", "peer", "name",
                         self.DEVICE, "netns", self.near.holder.pid)
            for end, number in ((self.far, 1), (self.near, 2)):
                end.address = f"10.91.0.{number}"
                end.run("ip", "addr", "add", f"{end.address}/24", "dev", self.DEVICE)
                end.run("ip", "link", "set", self.DEVICE, "up")
        except BaseException:
            self.close()
            raise

    def rate(self, rate):
        """What is sent from the far side goes no faster ("100mbit"); None: as fast as it can."""
        if rate is None:
            self.far.run("tc", "qdisc", "del", "dev", self.DEVICE, "root")
            return
        self.far.run("tc", "qdisc", "replace", "dev", self.DEVICE, "root", "tbf", "rate", rate,
                     "burst", "256kb", "latency", "100ms")

    def lose(self, share):
        """This share of all packets does not arrive, in either direction."""
        for end in (self.far, self.near):
            end.run("iptables", "-w", "-A", "INPUT", "-i", self.DEVICE, "-m", "statistic",
                    "--mode", "random", "--probability", share, "-j", "DROP")

    def drop(self):
        """Nothing arrives any more, and nobody is told."""
        for end in (self.far, self.near):
            end.run("iptables", "-w", "-A", "INPUT", "-i", self.DEVICE, "-j", "DROP")

    def heal(self):
        """The end of lose() and drop()."""
        for end in (self.far, self.near):
            end.run("iptables", "-w", "-F", "INPUT")

    def unplug(self):
        self.near.run("ip", "link", "set", self.DEVICE, "down")

    def plug(self):
        """Returns when packets pass: the kernel may take a second to believe in the other end."""
        self.near.run("ip", "link", "set", self.DEVICE, "up")
        processes.wait_for(self.passes, 10, "packets to pass", pause=0.01)

    def passes(self):
        with self.near.socket() as s:
            s.settimeout(0.05)
            try:
                s.connect((self.far.address, 9))
            except ConnectionRefusedError:
                return True
            except OSError:
                pass
        return False

    def close(self):
        for end in (self.far, self.near):
            if end:
                end.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
