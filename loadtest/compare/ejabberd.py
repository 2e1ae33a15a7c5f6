"""ejabberd from Debian's package, as a process of our own: own configuration, own spool, on free loopback ports.

Run as a script it starts one, makes accounts, prints its ports and pid, and stops it when its standard input ends.
"""

import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent


class Ejabberd:
    """Use as a context manager; `port`, `port_tls` and `pid` are valid inside."""

    name = "ejabberd"

    def __init__(self, cpu=None, port=15222, scram_hash="sha"):
        self.cpu, self.port, self.port_tls, self.port_api = cpu, port, port + 1, port + 2
        self.scram_hash = scram_hash

    def __enter__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="heronry-ejabberd-"))
        make_certificate(self.directory)
        text = (HERE / "ejabberd.yml").read_text()
        for key, value in {
            "DIRECTORY": self.directory,
            "PORT": self.port,
            "PORT_TLS": self.port_tls,
            "PORT_API": self.port_api,
            "SCRAM_HASH": self.scram_hash,
        }.items():
            text = text.replace(f"@{key}@", str(value))
        (self.directory / "ejabberd.yml").write_text(text)
        # What Debian's ejabberdctl would run (it insists on its own user and directories), without distribution.
        command = ["erl", "+K", "true", "+P", "250000", "-env", "ERL_CRASH_DUMP_BYTES", "0", "-noinput"]
        command += ["-mnesia", "dir", f'"{self.directory}/spool"']
        command += ["-ejabberd", "config", f'"{self.directory}/ejabberd.yml"', "log_path", f'"{self.directory}/log"', "quiet", "true"]
        command += ["-s", "ejabberd"]
        if self.cpu is not None:
            command = ["taskset", "-c", str(self.cpu)] + command
        environment = dict(os.environ, ERL_LIBS="/usr/lib/x86_64-linux-gnu", ERL_MAX_PORTS="32000", ERL_MAX_ETS_TABLES="1400", HOME=str(self.directory))
        self.output = open(self.directory / "output", "wb")
        # taskset and erl replace themselves, so the pid is the virtual machine's own.
        self.process = subprocess.Popen(command, env=environment, cwd=self.directory, stdout=self.output, stderr=self.output, stdin=subprocess.DEVNULL)
        self.pid = self.process.pid
        try:
            self.wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait_until_ready(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                self.call(http.client.HTTPConnection("127.0.0.1", self.port_api, timeout=5), "status", {})
                return
            except OSError:
                time.sleep(0.2)
        raise RuntimeError("ejabberd did not start:\n" + (self.directory / "output").read_text()[-3000:])

    def create_accounts(self, count, prefix="u", password="p{n}"):
        connection = http.client.HTTPConnection("127.0.0.1", self.port_api, timeout=60)
        for n in range(count):
            self.call(connection, "register", {"user": f"{prefix}{n}", "host": "localhost", "password": password.format(n=n)})

    @staticmethod
    def call(connection, command, arguments):
        connection.request("POST", f"/api/{command}", json.dumps(arguments), {"Content-Type": "application/json"})
        response = connection.getresponse()
        body = response.read()
        if response.status not in (200, 409):
            raise RuntimeError(f"ejabberd refused {command} {arguments}: {response.status} {body[:300]}")

    def version(self):
        return subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "ejabberd"], capture_output=True, text=True).stdout

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.output.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def make_certificate(directory):
    """An ECDSA P-256 certificate for localhost: server.pem has certificate and key, certificate.pem and key.pem one each."""
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    key.chmod(0o600)
    (directory / "server.pem").write_text(certificate.read_text() + key.read_text())
    (directory / "server.pem").chmod(0o600)


if __name__ == "__main__":
    accounts = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    scram_hash = sys.argv[2] if len(sys.argv) > 2 else "sha"
    with Ejabberd(scram_hash=scram_hash) as server:
        server.create_accounts(accounts)
        print(f"port {server.port} tls {server.port_tls} pid {server.pid}", flush=True)
        sys.stdin.read()
