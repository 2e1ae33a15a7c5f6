#!/usr/bin/env python3
"""What a cluster does when its nodes die, and what it costs: three cores and two edges on this machine, and writes docs/cluster-figures.md.

    make build
    loadtest/compare/cluster.py    # some ten minutes, alone on the machine

All processes share the processors; nothing is pinned. Devices are two processes of `heronry-loadtest steady`, each at both edges.
"""

import argparse
import json
import math
import os
import pathlib
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from servers import Heronry, make_certificate

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIGURES = ROOT / "docs/cluster-figures.md"
CORES, EDGES, SHARDS = (1, 2, 3), (4, 5), 16
# Another cluster, for what shards cost that nobody uses.
MANY_SHARDS = 64
START_SECONDS, PLACE_SECONDS = 120, 120
SLOTS = 4096


def say(text):
    print(text, file=sys.stderr, flush=True)


class Node:
    def __init__(self, cluster, number, role):
        self.cluster, self.number, self.role, self.process = cluster, number, role, None
        self.address = f"127.81.0.{number}"
        seeds = ",".join(f"127.81.0.{core}:5269" for core in cluster.cores)
        settings = {
            "roles": role, "admin.listen": f"{self.address}:5280", "edge.c2s": f"{self.address}:5222",
            "edge.c2s_tls": f"{self.address}:5223", "peer.listen": f"{self.address}:5269", "peer.seeds": seeds,
            "tls.required": "false", "limits.rate.enabled": "false", "limits.group.shards": cluster.shards,
            # All devices have the same address here.
            "limits.before_auth.connections_per_address_max": 20000, "limits.before_auth.connections_max": 20000,
            "tls.certificate": cluster.directory / "certificate.pem", "tls.key": cluster.directory / "key.pem",
        }
        if role == "core":
            settings["peer.bootstrap"] = len(cluster.cores)
        self.flags = ["--data", str(cluster.directory / f"node-{number}")]
        for key, value in settings.items():
            self.flags += ["--set", f"{key}={value}"]

    def start(self):
        output = open(self.cluster.directory / f"node-{self.number}.log", "ab")
        self.process = subprocess.Popen(
            [self.cluster.binary, "run", *self.flags], stdout=output, stderr=output, stdin=subprocess.DEVNULL)

    def ask(self, *arguments):
        done = subprocess.run([self.cluster.binary, *arguments, *self.flags], capture_output=True, text=True)
        return json.loads(done.stdout) if done.returncode == 0 and done.stdout.startswith(("{", "[")) else None

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024


class Cluster:
    def __init__(self, binary, cores=CORES, shards=SHARDS):
        self.binary, self.cores, self.shards = str(pathlib.Path(binary).resolve()), cores, shards

    def __enter__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="heronry-figures-"))
        make_certificate(self.directory)
        roles = [(core, "core") for core in self.cores] + [(edge, "edge") for edge in EDGES]
        self.nodes = {number: Node(self, number, role) for number, role in roles}
        return self

    def start(self):
        for node in self.nodes.values():
            node.start()
        until(START_SECONDS, lambda: all(node.ask("status", "--json") for node in self.nodes.values()))
        self.is_placed()

    def __exit__(self, *_):
        for node in self.nodes.values():
            if node.process and node.process.poll() is None:
                node.process.terminate()
        for node in filter(lambda node: node.process, self.nodes.values()):
            try:
                node.process.wait(30)
            except subprocess.TimeoutExpired:
                node.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def leaders(self):
        """Which core leads which shard."""
        shards = next(filter(None, (self.nodes[edge].ask("cluster", "shards", "--json") for edge in EDGES)), [])
        ids = {self.nodes[core].ask("cluster", "status", "--json")["node"]: core for core in self.cores if self.alive(core)}
        numbered = [shard for shard in shards if shard["shard"].isdigit()]
        return {int(shard["shard"]): ids.get(shard["leader"]) for shard in numbered}, shards

    def alive(self, number):
        return self.nodes[number].process.poll() is None

    def is_placed(self):
        """Every core votes in every shard, and leads some."""
        def placed():
            leaders, shards = self.leaders()
            voters = all(len(shard["voters"]) == len(self.cores) for shard in shards)
            return len(leaders) == self.shards and voters and set(leaders.values()) == set(self.cores)
        until(PLACE_SECONDS, placed)

    def create_accounts(self, count):
        accounts = Heronry.__new__(Heronry)
        accounts.binary, accounts.directory = self.binary, self.directory
        accounts.arguments = lambda: self.nodes[1].flags
        accounts.create_accounts(count)

    def cpu_seconds(self):
        return {number: node.cpu_seconds() for number, node in self.nodes.items() if self.alive(number)}


def until(seconds, holds):
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError("it does not come about in time")
        time.sleep(0.5)


def shard_of(jid):
    """As xmpp/src/jid/slot.rs."""
    mask, value = (1 << 64) - 1, 0xCBF29CE484222325
    for byte in jid.split("/")[0].encode():
        value = ((value ^ byte) * 0x100000001B3) & mask
    slot = ((value * 0x9E3779B97F4A7C15) & mask) >> 52
    return slot * SHARDS // SLOTS


def at(values, share):
    return sorted(values)[min(len(values) - 1, math.floor(len(values) * share))] if values else float("nan")


class Figures:
    def __init__(self, options):
        self.options, self.rows = options, []

    def row(self, what, how_much):
        say(f"  {what}: {how_much}")
        self.rows.append(f"| {what} | {how_much} |")

    def idle(self, cluster):
        """What replicas cost that do nothing: a core compared with an edge of the same cluster, which has none of them and the same links."""
        time.sleep(10)
        before, seconds = cluster.cpu_seconds(), 20
        time.sleep(seconds)
        after = cluster.cpu_seconds()
        share = {node: (after[node] - before[node]) / seconds * 100 for node in after}
        memory = {node: cluster.nodes[node].memory() / 2**20 for node in after}
        of = lambda values: (max(values[core] for core in cluster.cores), max(values[edge] for edge in EDGES))
        (cpu, cpu_without), (core, without) = of(share), of(memory)
        self.row(
            f"idle: what {cluster.shards} replicas take of a core",
            f"{cpu - cpu_without:.1f} % of a processor ({cpu:.1f} % less an edge's {cpu_without:.1f} %), "
            f"{core - without:.0f} MiB ({core:.0f} less an edge's {without:.0f})")

    def throughput(self, cluster, way):
        senders, receivers = (cluster.nodes[edge].address for edge in EDGES)
        for window in (1, 8):
            before = cluster.cpu_seconds()
            report = self.loadtest(
                "messages", "--server", f"{senders}:5222", "--receivers", f"{receivers}:5222", "--tls", "none", "--mechanism",
                "SCRAM-SHA-1", "--pairs", 10, "--first-user", self.options.devices, "--window", window, "--warm-up", 0, "--duration", self.options.seconds)["result"]
            after = cluster.cpu_seconds()
            used = {number: (after[number] - before[number]) * 1e6 / report["messages"] for number in after}
            latency = report["latency"]
            self.row(
                f"1:1 message, {way}, window {window}",
                f"{report['messages_per_second']:.0f} a second, p50 {latency['p50_us']} µs, p99 {latency['p99_us']} µs; CPU "
                f"{sum(used.values()):.1f} µs: edges {sum(used[n] for n in EDGES):.1f}, cores {sum(used[n] for n in cluster.cores):.1f}")

    def loadtest(self, *arguments):
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            subprocess.run([self.options.loadtest, *map(str, arguments), "--json", file.name], check=True, stdout=subprocess.DEVNULL)
            return json.load(open(file.name))

    def steady(self, cluster, devices, seconds, happens):
        """Devices talk while something happens. Gives their reports, and their histories with wall-clock times."""
        servers = [f"{cluster.nodes[edge].address}:5222" for edge in EDGES]
        running, half = [], devices // 2
        for part in range(2):
            history, report = cluster.directory / f"history-{part}", cluster.directory / f"report-{part}.json"
            command = [
                self.options.loadtest, "steady", "--server", servers[part], "--also", servers[1 - part], "--tls", "none", "--mechanism",
                "SCRAM-SHA-1", "--devices", half, "--first-user", part * half, "--concurrency", 64, "--interval", self.options.interval,
                "--rows-every", 0, "--duration", seconds, "--history", history, "--json", report, "--watch"]
            output = open(cluster.directory / f"steady-{part}.log", "w+")
            running.append((subprocess.Popen(list(map(str, command)), stdout=output, stderr=subprocess.STDOUT), output, history, report))
        def talking():
            for process, output, *_ in running:
                if process.poll() is not None:
                    raise RuntimeError(pathlib.Path(output.name).read_text()[-2000:])
            # The first line comes when all have logged in.
            return all(" s " in pathlib.Path(output.name).read_text() for _, output, *_ in running)
        until(600, talking)
        happens()
        reports, events = [], []
        for process, output, history, report in running:
            if process.wait(seconds + 300) != 0:
                raise RuntimeError(pathlib.Path(output.name).read_text()[-2000:])
            reports.append(json.load(open(report))["result"])
            events.append([json.loads(line) for line in open(history)])
            checked = subprocess.run([self.options.loadtest, "check", history], capture_output=True, text=True)
            if checked.returncode != 0:
                kept = pathlib.Path(tempfile.gettempdir()) / f"heronry-broken-{history.name}"
                shutil.copy(history, kept)
                self.row("**promises that did not hold**", f"{checked.stdout.count(chr(10))}, see `heronry-loadtest check` of the history")
                say(f"{kept}: {(checked.stdout + checked.stderr)[:2000]}")
        return reports, events

    def failover(self, cluster):
        leaders = {}

        def kill_core():
            time.sleep(10)
            leaders.update(cluster.leaders()[0])
            cluster.nodes[1].kill()

        reports, histories = self.steady(cluster, self.options.devices, 40, kill_core)
        total = lambda name: sum(report[name] for report in reports)
        self.row("sessions, messages a second", f"{total('devices')}, {total('sent') / 40:.0f}")
        self.row("a core is killed: sockets lost", total("sockets_lost"))
        self.row("… acknowledged messages, of those lost", f"{total('acknowledged')}, {total('lost')}")
        hit, others = [], []
        for history in histories:
            sent, took = {}, []
            for event in history:
                if event["what"] == "sent":
                    sent[event["id"]] = event
                elif event["what"] == "delivered" and event["id"] in sent:
                    first = sent.pop(event["id"])
                    took.append((first["at"], (event["at"] - first["at"]) / 1e6, first["by"], first["to"]))
            if not took:
                continue
            # It was killed when waiting began: the earliest message of those that waited longest.
            stalled = [at for at, wait, *_ in took if wait > 0.5]
            begin = min(stalled, default=0)
            for sent_at, wait, by, to in took:
                if not begin <= sent_at <= begin + 1_000_000:
                    continue
                led = {leaders.get(shard_of(by)), leaders.get(shard_of(to))}
                (hit if 1 in led else others).append(wait)
        form = lambda waits: f"{at(waits, .5):.2f} s, {at(waits, .99):.2f} s, {max(waits, default=float('nan')):.2f} s ({len(waits)})"
        self.row("… wait of messages sent in the second after, for shards it led: p50, p99, longest (of)", form(hit))
        self.row("… for other shards", form(others))
        cluster.nodes[1].start()
        until(START_SECONDS, lambda: cluster.nodes[1].ask("status", "--json"))
        cluster.is_placed()

        def kill_edge():
            time.sleep(10)
            cluster.nodes[EDGES[0]].kill()

        reports, _ = self.steady(cluster, self.options.devices_of_one_edge, 60, kill_edge)
        lost, resumed = total_of(reports, "sockets_lost"), total_of(reports, "sessions_resumed")
        self.row(
            "an edge is killed: sockets lost, sessions resumed at the other",
            f"{lost} of {total_of(reports, 'devices')}, {resumed} ({resumed / max(lost, 1) * 100:.2f} %)")
        self.row("… acknowledged messages, of those lost", f"{total_of(reports, 'acknowledged')}, {total_of(reports, 'lost')}")


def total_of(reports, name):
    return sum(report[name] for report in reports)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heronry", default=ROOT / "target/release/heronry")
    parser.add_argument("--loadtest", default=ROOT / "target/release/heronry-loadtest")
    parser.add_argument("--devices", type=int, default=20_000)
    parser.add_argument("--interval", type=float, default=20, help="seconds between two messages of a device")
    parser.add_argument("--seconds", type=int, default=10, help="for throughput")
    options = parser.parse_args()
    options.loadtest = str(options.loadtest)
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    # When one edge is gone the other has all sockets, and a store besides.
    options.devices_of_one_edge = min(options.devices, files - 1000)
    figures = Figures(options)
    with Cluster(options.heronry, shards=MANY_SHARDS) as cluster:
        cluster.start()
        figures.idle(cluster)
    with Cluster(options.heronry, cores=(1,)) as cluster:
        cluster.start()
        cluster.create_accounts(options.devices + 20)
        figures.throughput(cluster, "sender, shards and recipient on three nodes")
    with Cluster(options.heronry) as cluster:
        cluster.start()
        figures.idle(cluster)
        # Those of the traffic are others: what was under way when it ended comes to whoever logs in next.
        cluster.create_accounts(options.devices + 20)
        figures.throughput(cluster, "shards on three cores, sender and recipient on two edges")
        figures.failover(cluster)
    text = FIGURES.read_text()
    begin, end = "<!-- written by loadtest/compare/cluster.py: begin -->", "<!-- end -->"
    table = "\n".join(["| | |", "|---|---|", *figures.rows])
    when = f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} processors, Linux {platform.release()}."
    FIGURES.write_text(text[:text.index(begin)] + f"{begin}\n{table}\n\n{when}\n" + text[text.index(end):])


if __name__ == "__main__":
    main()
