"""Servers as processes of our own: own directories, loopback ports, pinned, stopped by pid.

As a script it starts one, makes accounts u0... with passwords p0..., prints its ports and pid, and stops it when its standard
input ends.
"""

import argparse
import base64
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
START_SECONDS = 60
STOP_SECONDS = 20


class Server:
    """A server with its own directory. As a context manager it removes that at the end; start() and stop() may be repeated
    inside, with the accounts kept."""

    def __init__(self, port, cpu=None):
        self.port, self.port_tls, self.port_http, self.cpu = port, port + 1, port + 2, cpu
        self.process = None

    def __enter__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix=f"heronry-compare-{self.name}-"))
        make_certificate(self.directory)
        self.configure()
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self):
        for port in (self.port, self.port_tls, self.port_http):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    raise RuntimeError(f"something listens on port {port} already")
        pin = [] if self.cpu is None else ["taskset", "-c", str(self.cpu)]
        with open(self.directory / "output", "wb") as output:
            # taskset replaces itself, so the pid is the server's own.
            self.process = subprocess.Popen(
                pin + self.command(), env=dict(os.environ, **self.environment()), cwd=self.directory,
                stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.is_ready():
                return
            time.sleep(0.2)
        raise RuntimeError(f"{self.name} did not start:\n" + self.output()[-3000:])

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def pid(self):
        return self.process.pid

    def output(self):
        return (self.directory / "output").read_text(errors="replace")


class Ejabberd(Server):
    """Of Debian's package, without distribution between nodes."""

    name = "ejabberd"

    def __init__(self, port=15222, cpu=None, scram_hash="sha"):
        super().__init__(port, cpu)
        self.scram_hash = scram_hash

    def configure(self):
        text = (HERE / "ejabberd.yml").read_text()
        for key, value in {
            "DIRECTORY": self.directory,
            "PORT": self.port,
            "PORT_TLS": self.port_tls,
            "PORT_API": self.port_http,
            "SCRAM_HASH": self.scram_hash,
        }.items():
            text = text.replace(f"@{key}@", str(value))
        (self.directory / "ejabberd.yml").write_text(text)

    def command(self):
        # What Debian's ejabberdctl would run; that insists on its own user and directories.
        return [
            "erl", "+K", "true", "+P", "250000", "-env", "ERL_CRASH_DUMP_BYTES", "0", "-noinput",
            "-mnesia", "dir", f'"{self.directory}/spool"',
            "-ejabberd", "config", f'"{self.directory}/ejabberd.yml"', "log_path", f'"{self.directory}/log"', "quiet", "true",
            "-s", "ejabberd",
        ]

    def environment(self):
        return {"ERL_LIBS": "/usr/lib/x86_64-linux-gnu", "ERL_MAX_PORTS": "32000", "ERL_MAX_ETS_TABLES": "1400", "HOME": str(self.directory)}

    def is_ready(self):
        try:
            self.call(self.api(), "status", {})
            return True
        except OSError:
            return False

    def create_accounts(self, count):
        connection = self.api()
        for n in range(count):
            self.call(connection, "register", {"user": f"u{n}", "host": "localhost", "password": f"p{n}"})

    def api(self):
        return http.client.HTTPConnection("127.0.0.1", self.port_http, timeout=60)

    @staticmethod
    def call(connection, command, arguments):
        connection.request("POST", f"/api/{command}", json.dumps(arguments), {"Content-Type": "application/json"})
        response = connection.getresponse()
        body = response.read()
        if response.status not in (200, 409):
            raise RuntimeError(f"ejabberd refused {command} {arguments}: {response.status} {body[:300]}")

    def version(self):
        query = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "ejabberd"], capture_output=True, text=True, check=True)
        return query.stdout.split("-")[0]


class Heronry(Server):
    """One node, edge and core in one process, embedded store."""

    name = "heronry"

    def __init__(self, binary, port=16222, cpu=None):
        super().__init__(port, cpu)
        self.binary = str(pathlib.Path(binary).resolve())

    def configure(self):
        (self.directory / "heronry.toml").write_text(f"""
domains = ["localhost"]
[edge]
c2s = "127.0.0.1:{self.port}"
c2s_tls = "127.0.0.1:{self.port_tls}"
[tls]
required = false
certificate = "{self.directory}/certificate.pem"
key = "{self.directory}/key.pem"
[admin]
listen = "127.0.0.1:{self.port_http}"
[storage]
data = "{self.directory}/data"
[limits.rate]
enabled = false
""")

    def arguments(self):
        return ["--config", str(self.directory / "heronry.toml")]

    def command(self):
        return [self.binary, "run"] + self.arguments()

    def environment(self):
        return {}

    def is_ready(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port_http, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False

    def create_accounts(self, count):
        """With the keys ejabberd makes: SCRAM-SHA-1, 4096 iterations."""
        lines = ["jid,mechanism,iterations,salt,stored_key,server_key"]
        encode = lambda key: base64.b64encode(key).decode()
        for n in range(count):
            salt = hashlib.sha1(b"salt %d" % n).digest()[:16]
            salted = hashlib.pbkdf2_hmac("sha1", b"p%d" % n, salt, 4096)
            client_key = hmac.digest(salted, b"Client Key", "sha1")
            keys = [salt, hashlib.sha1(client_key).digest(), hmac.digest(salted, b"Server Key", "sha1")]
            lines.append(f"u{n}@localhost,SCRAM-SHA-1,4096," + ",".join(map(encode, keys)))
        file = self.directory / "accounts.csv"
        file.write_text("\n".join(lines) + "\n")
        subprocess.run([self.binary, "user", "import", str(file)] + self.arguments(), check=True, stdout=subprocess.DEVNULL)

    def version(self):
        version = subprocess.run([self.binary, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout.strip()
        return f"{version} ({commit})" if commit else version


def make_certificate(directory):
    """An ECDSA P-256 certificate for localhost: server.pem has certificate and key, certificate.pem and key.pem one each."""
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    key.chmod(0o600)
    both = directory / "server.pem"
    both.touch(mode=0o600)
    both.write_text(certificate.read_text() + key.read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", choices=["ejabberd", "heronry"])
    parser.add_argument("--accounts", type=int, default=10)
    parser.add_argument("--port", type=int, default=15222, help="the next one is for direct TLS, the one after for HTTP")
    parser.add_argument("--cpu", type=int, help="pin to this processor")
    parser.add_argument("--scram-hash", default="sha", choices=["sha", "sha256", "sha512"], help="ejabberd's")
    parser.add_argument("--heronry", default=HERE.parents[1] / "target/release/heronry", help="the binary")
    options = parser.parse_args()
    if options.server == "ejabberd":
        server = Ejabberd(options.port, options.cpu, options.scram_hash)
    else:
        server = Heronry(options.heronry, options.port, options.cpu)
    with server:
        server.start()
        server.create_accounts(options.accounts)
        print(f"port {server.port} tls {server.port_tls} pid {server.pid}", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
