#!/usr/bin/env python3
"""Measures Heronry next to ejabberd in one run and writes docs/benchmarks.json and the tables of docs/benchmarks.md.

    apt-get install ejabberd       # Debian's; its own service need not run
    make build
    loadtest/compare/compare.py    # some twenty minutes on two processors that nobody else uses

The server is pinned to processor 0 and the generator to processor 1. Every measurement begins with a fresh process, so that
none leaves memory behind for the next.
"""

import argparse
import json
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

from servers import Ejabberd, Heronry

ROOT = pathlib.Path(__file__).resolve().parents[2]
SERVER_CPU, GENERATOR_CPU = 0, 1
BEGIN, END = "<!-- written by loadtest/compare/compare.py: begin -->", "<!-- end -->"


class Run:
    def __init__(self, options):
        self.options = options
        self.steps = [int(step) for step in options.steps.split(",")]

    def loadtest(self, *arguments):
        """Runs a scenario and gives its report."""
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            command = [self.options.loadtest, *map(str, arguments), "--json", file.name]
            print("  " + " ".join(command[1:]), file=sys.stderr, flush=True)
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            report = json.load(open(file.name))
        # Where exactly things were on this machine is of no interest.
        report.pop("arguments")
        if report["generator"]["limited"]:
            print(f"  the generator was the limit: {report['generator']}", file=sys.stderr)
        return report

    def at(self, server, tls):
        port = server.port_tls if tls else server.port
        return ["--server", f"127.0.0.1:{port}", "--tls", "direct" if tls else "none", "--pid", server.pid,
                "--pin", GENERATOR_CPU, "--mechanism", "SCRAM-SHA-1"]

    def fresh(self, server, measure):
        server.stop()
        server.start()
        time.sleep(3)
        return measure()

    def measure(self, server):
        print(server.name, file=sys.stderr)
        seconds = ["--duration", self.options.seconds]
        traffic = seconds + ["--pairs", self.options.pairs]
        logins = seconds + ["--users", 100, "--concurrency", 32, "--source-addresses", 4]
        idle = ["--steps", self.options.steps, "--settle", self.options.settle, "--concurrency", 32]
        scenarios = {
            "messages_window_1": lambda: self.loadtest("messages", *self.at(server, False), *traffic, "--window", 1),
            "messages_window_8": lambda: self.loadtest("messages", *self.at(server, False), *traffic, "--window", 8),
            "login_plain": lambda: self.loadtest("login", *self.at(server, False), *logins),
            "login_tls": lambda: self.loadtest("login", *self.at(server, True), *logins),
            "login_contacts": lambda: self.loadtest("login", *self.at(server, False), *logins, "--contacts", 10),
            "idle_plain": lambda: self.loadtest("idle", *self.at(server, False), *idle),
            "idle_tls": lambda: self.loadtest("idle", *self.at(server, True), *idle),
        }
        wanted = self.options.scenarios.split(",") if self.options.scenarios else scenarios
        with server:
            server.start()
            begin = time.monotonic()
            # As many accounts again are the contacts of those who log in.
            server.create_accounts(max(self.steps + [2 * self.options.pairs, 200]))
            print(f"  accounts made in {time.monotonic() - begin:.0f} s", file=sys.stderr)
            found = {name: self.fresh(server, scenarios[name]) for name in wanted}
            return {"version": server.version(), **found}

    def floor(self):
        print("floor", file=sys.stderr)
        traffic = ["--duration", self.options.seconds, "--pairs", self.options.pairs]
        pins = ["--relay-pin", SERVER_CPU, "--pin", GENERATOR_CPU]
        return {f"messages_window_{window}": self.loadtest("floor", *traffic, *pins, "--window", window) for window in (1, 8)}


def machine():
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    memory = int(next(line.split()[1] for line in open("/proc/meminfo") if line.startswith("MemTotal")))
    return {"cpu": cpu, "processors": len([line for line in open("/proc/cpuinfo") if line.startswith("processor")]),
            "memory_gib": round(memory / 2**20), "kernel": platform.release()}


# ---- the tables ----

def cell(found, name, value):
    report = found.get(name)
    if report is None:
        return "–"
    # Memory is what it is, however long the generator took.
    limited = report["generator"]["limited"] and report["scenario"] != "idle"
    return value(report["result"]) + (" †" if limited else "")


def memory(step):
    def value(result):
        for entry in result["steps"]:
            if entry["sessions"] == step and entry["rss_bytes_per_session"] is not None:
                return f"{entry['rss_bytes_per_session'] / 1024:.1f} KB" + (f" ({entry['lost']} lost)" if entry["lost"] else "")
        return "–"
    return value


def cost(result):
    return f"{result['server_cpu_us_per_message']:.1f} µs"


def latency(result):
    return "{p50_us} / {p99_us} µs".format(**result["latency"])


def rate(name):
    return lambda result: f"{result[name]:,.0f}".replace(",", " ")


def tables(results):
    columns = [name for name in ("ejabberd", "floor", "heronry") if name in results["servers"]]
    title = {"ejabberd": "ejabberd {version}", "floor": "floor", "heronry": "**Heronry** {version}"}
    heads = [title[name].format(**results["servers"][name]) for name in columns]
    steps = results["steps"]
    rows = [(f"memory per idle session, plain, {step} sessions", "idle_plain", memory(step)) for step in steps]
    rows += [(f"memory per idle session, TLS 1.3, {step} sessions", "idle_tls", memory(step)) for step in steps]
    for window in (1, 8):
        name = f"messages_window_{window}"
        rows.append((f"CPU per 1:1 message, window {window}", name, cost))
        rows.append((f"… messages per second", name, rate("messages_per_second")))
        rows.append((f"… latency p50 / p99", name, latency))
    for name, what in (("login_plain", "SCRAM, no TLS"), ("login_tls", "TLS 1.3 + SCRAM"),
                       ("login_contacts", "SCRAM, no TLS, roster and presence of ten contacts")):
        rows.append((f"logins per CPU second, {what}", name, rate("logins_per_server_cpu_second")))
        rows.append(("… latency p50 / p99", name, latency))
    lines = ["| server cost | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for what, name, value in rows:
        cells = [cell(results["servers"][column], name, value) for column in columns]
        if all(text == "–" for text in cells):
            continue
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    host = results["machine"]
    lines += ["", f"{results['date']}, {host['processors']} × {host['cpu']}, {host['memory_gib']} GiB, Linux {host['kernel']}. "
              "† the generator itself was the limit, so rate and latency say little about the server; its CPU time does."]
    return "\n".join(lines)


def write_page(page, text):
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", default="ejabberd,floor,heronry")
    parser.add_argument("--scenarios", help="only these, such as messages_window_1,idle_tls")
    parser.add_argument("--heronry", default=str(ROOT / "target/release/heronry"))
    parser.add_argument("--loadtest", default=str(ROOT / "target/release/heronry-loadtest"))
    parser.add_argument("--steps", default="1000,10000,19000", help="numbers of idle sessions")
    parser.add_argument("--settle", type=float, default=10, help="seconds before memory is read")
    parser.add_argument("--seconds", type=float, default=10, help="measured time of messages and logins")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--json", type=pathlib.Path, default=ROOT / "docs/benchmarks.json")
    parser.add_argument("--page", type=pathlib.Path, default=ROOT / "docs/benchmarks.md", help="whose tables are replaced")
    options = parser.parse_args()
    run = Run(options)
    servers = {}
    for name in options.servers.split(","):
        if name == "floor":
            servers[name] = run.floor()
        elif name == "ejabberd":
            servers[name] = run.measure(Ejabberd(cpu=SERVER_CPU))
        else:
            servers[name] = run.measure(Heronry(options.heronry, cpu=SERVER_CPU))
    results = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "steps": run.steps, "servers": servers}
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    text = tables(results)
    print(text)
    if options.page.exists():
        write_page(options.page, text)


if __name__ == "__main__":
    main()
