# SPDX-License-Identifier: GPL-2.0-or-later
"""pid 1 of a pid namespace: runs the restore, reaps what it restored, reports both exit statuses.

pidns_init.py RC PIDFILE STATUS COMMAND...: the exit status of COMMAND goes to the file RC, that of
the process whose pid is in PIDFILE to STATUS.
"""

import os
import subprocess
import sys


def report(path, value):
    with open(path + ".tmp", "w", encoding="ascii") as f:
        f.write(str(value))
    os.rename(path + ".tmp", path)


def main():
    rc, pidfile, status, *command = sys.argv[1:]
    code = subprocess.run(command, check=False).returncode
    report(rc, code)
    if code:
        return code
    with open(pidfile, encoding="ascii") as f:
        root = int(f.read())
    while True:
        try:
            pid, result = os.wait()
        except ChildProcessError:
            return 0  # all of them: a child may outlive the root
        if pid == root:
            report(status, os.waitstatus_to_exitcode(result))


sys.exit(main())
