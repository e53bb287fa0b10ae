# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates for tests (make-pki says which), and the options that name them.

    pki = Pki(directory)
    pki.options("client")        # --tls --tls-cacert ca.pem --tls-cert client.pem --tls-key ...
    secured(OurServer, pki.options("server"), pki.options("client"))   # remote=, of a Case
"""

import subprocess

from . import paths


class Pki:
    def __init__(self, directory):
        self.dir = directory
        directory.mkdir(parents=True, exist_ok=True)
        subprocess.run([paths.TOP / "test/zdtm/make-pki", directory], check=True, timeout=60)

    def options(self, name, *more, ca="ca"):
        return ["--tls", "--tls-cacert", self.dir / f"{ca}.pem", "--tls-cert",
                self.dir / f"{name}.pem", "--tls-key", self.dir / f"{name}-key.pem", *more]


def secured(kind, server, client):
    """A class like OurServer, with these options for the server and for its client."""
    class Secured(kind):
        def options(self):
            return [*super().options(), *map(str, client)]

        def command(self):
            return [*super().command(), *server]

        def dump(self, case, *extra):
            more = server if self.pidns else []
            super().dump(case, *extra, *more)
    return Secured()
