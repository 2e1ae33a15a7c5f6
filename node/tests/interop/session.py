"""What a stranger's client sees: slixmpp logs in, talks, loses its connection and goes on.

Accounts juliet@localhost and romeo@localhost with the password "wherefore" must exist. Prints a line for each check that holds and
ends with a traceback at the first that does not.
"""

import argparse
import asyncio
import logging
import ssl
import sys

from slixmpp import ClientXMPP

PATIENCE = 20  # seconds for anything that has to happen


class Client(ClientXMPP):
    """A slixmpp client that remembers what came and can be waited for."""

    def __init__(self, options, name, port=None, direct_tls=False, **arguments):
        password = arguments.pop("password", "wherefore")
        super().__init__(f"{name}@localhost/{arguments.pop('resource', 'test')}", password, **arguments)
        self.ca_certs = options.ca
        self.enable_direct_tls = direct_tls
        self.enable_starttls = not direct_tls
        self.address = (options.host, port or (options.c2s_tls if direct_tls else options.c2s))
        self.bodies = []
        self.arrived = asyncio.Event()
        self.add_event_handler("message", self.on_message)
        self.add_event_handler("session_start", lambda _: self.send_presence())
        for plugin in ("xep_0030", "xep_0049", "xep_0092", "xep_0199"):
            self.register_plugin(plugin)

    def on_message(self, message):
        if message["type"] in ("chat", "normal"):
            self.bodies.append(message["body"])
            self.arrived.set()

    async def happens(self, *events):
        """Waits until one of these events happens, and names it."""
        happened = asyncio.get_running_loop().create_future()
        for event in events:
            self.add_event_handler(
                event, lambda data, event=event: happened.done() or happened.set_result((event, data)), disposable=True
            )
        return await asyncio.wait_for(happened, PATIENCE)

    async def log_in(self):
        outcome = asyncio.ensure_future(
            self.happens("session_start", "session_resumed", "failed_all_auth", "connection_failed", "ssl_invalid_chain")
        )
        await asyncio.sleep(0)
        self.connect(*self.address)
        return (await outcome)[0]

    async def has(self, count):
        """The bodies received, once there are so many."""
        async with asyncio.timeout(PATIENCE):
            while len(self.bodies) < count:
                self.arrived.clear()
                await self.arrived.wait()
        return self.bodies

    async def leave(self):
        self.end_session_on_disconnect = True
        await asyncio.wait_for(self.disconnect(), PATIENCE)


class Proxy:
    """Stands between client and broker, and can cut the cable: both ends see a reset, nothing is said goodbye to."""

    def __init__(self, options):
        self.target = (options.host, options.c2s)
        self.cables = []

    async def open(self):
        self.server = await asyncio.start_server(self.carry, self.target[0], 0)
        return self.server.sockets[0].getsockname()[1]

    async def carry(self, reader, writer):
        far_reader, far_writer = await asyncio.open_connection(*self.target)
        self.cables += [writer, far_writer]
        await asyncio.gather(self.copy(reader, far_writer), self.copy(far_reader, writer))

    async def copy(self, reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    def cut(self):
        for cable in self.cables:
            cable.transport.abort()
        self.cables.clear()

    def close(self):
        self.cut()
        self.server.close()


async def logs_in_with_every_mechanism(options):
    for mechanism in ("SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"):
        client = Client(options, "juliet", sasl_mech=mechanism)
        assert await client.log_in() == "session_start", mechanism
        assert isinstance(client.socket, (ssl.SSLSocket, ssl.SSLObject)), "not inside TLS"
        await client.leave()


async def prefers_scram_over_plain(options):
    client = Client(options, "juliet")
    assert await client.log_in() == "session_start"
    assert client.plugin["feature_mechanisms"].mech.name.startswith("SCRAM-"), client.plugin["feature_mechanisms"].mech.name
    await client.leave()


async def logs_in_over_direct_tls(options):
    client = Client(options, "juliet", direct_tls=True)
    assert await client.log_in() == "session_start"
    await client.leave()


async def a_wrong_password_is_refused(options):
    for name in ("juliet", "nobody"):
        client = Client(options, name, password="therefore")
        assert await client.log_in() == "failed_all_auth", name
        client.abort()


async def the_server_answers_disco_ping_and_version(options):
    client = Client(options, "juliet")
    assert await client.log_in() == "session_start"
    info = (await client.plugin["xep_0030"].get_info(jid="localhost", timeout=PATIENCE))["disco_info"]
    assert ("server", "im") in {(identity[0], identity[1]) for identity in info["identities"]}, info
    for feature in ("http://jabber.org/protocol/disco#info", "urn:xmpp:ping", "jabber:iq:version"):
        assert feature in info["features"], f"{feature} is not in {info['features']}"
    assert await client.plugin["xep_0199"].ping("localhost", timeout=PATIENCE) < PATIENCE
    version = (await client.plugin["xep_0092"].get_version("localhost", timeout=PATIENCE))["software_version"]
    assert version["name"] and version["version"], version
    await client.leave()


async def two_accounts_talk_in_order(options):
    juliet, romeo = Client(options, "juliet"), Client(options, "romeo")
    outcomes = [await juliet.log_in(), await romeo.log_in()]
    assert outcomes == ["session_start", "session_start"], outcomes
    assert await juliet.plugin["xep_0199"].ping(romeo.boundjid, timeout=PATIENCE) < PATIENCE
    said = [f"{number}: <é & 🌹>" for number in range(100)]
    for body in said:
        juliet.send_message(romeo.boundjid.bare, body, mtype="chat")
        romeo.send_message(juliet.boundjid.full, body, mtype="chat")
    assert await romeo.has(100) == said
    assert await juliet.has(100) == said
    await juliet.leave()
    await romeo.leave()


async def what_is_said_to_the_absent_waits_for_them(options):
    juliet = Client(options, "juliet")
    assert await juliet.log_in() == "session_start"
    said = [f"offline {number}" for number in range(10)]
    for body in said:
        juliet.send_message("romeo@localhost", body, mtype="chat")
    # Answered after everything before it on this stream has been taken.
    await juliet.plugin["xep_0199"].ping("localhost", timeout=PATIENCE)
    await juliet.leave()
    romeo = Client(options, "romeo")
    assert await romeo.log_in() == "session_start"
    assert await romeo.has(10) == said
    await romeo.leave()


async def a_cut_connection_resumes_and_nothing_is_lost(options):
    proxy = Proxy(options)
    juliet, romeo = Client(options, "juliet", port=await proxy.open()), Client(options, "romeo")
    juliet.register_plugin("xep_0198")
    enabled = asyncio.ensure_future(juliet.happens("sm_enabled"))
    outcomes = [await juliet.log_in(), await romeo.log_in()]
    assert outcomes == ["session_start", "session_start"], outcomes
    await enabled
    bound = juliet.boundjid.full
    to_juliet, to_romeo, resent = [], [], 0
    for round_number in range(5):
        cut = asyncio.ensure_future(juliet.happens("disconnected"))
        await asyncio.sleep(0)
        # In both directions, the cable is cut while they are under way.
        for number in range(20):
            to_juliet.append(f"to juliet {round_number}.{number}")
            to_romeo.append(f"to romeo {round_number}.{number}")
            romeo.send_message(bound, to_juliet[-1], mtype="chat")
            juliet.send_message(romeo.boundjid.full, to_romeo[-1], mtype="chat")
        # Some rounds cut before anything has left, others with part of it on its way.
        for _ in range(round_number):
            await asyncio.sleep(0.002)
        proxy.cut()
        await cut
        resent += len(juliet.plugin["xep_0198"].unacked_queue)
        for number in range(20):
            to_juliet.append(f"to juliet, away {round_number}.{number}")
            romeo.send_message(bound, to_juliet[-1], mtype="chat")
        await romeo.plugin["xep_0199"].ping("localhost", timeout=PATIENCE)
        assert await juliet.log_in() == "session_resumed", f"round {round_number}"
        assert await juliet.has(len(to_juliet)) == to_juliet, f"round {round_number}"
        assert await romeo.has(len(to_romeo)) == to_romeo, f"round {round_number}"
    assert juliet.boundjid.full == bound
    assert resent, "no cut came before an acknowledgement"
    # Still a session like any other.
    assert await juliet.plugin["xep_0199"].ping("localhost", timeout=PATIENCE) < PATIENCE
    assert (juliet.bodies, romeo.bodies) == (to_juliet, to_romeo)
    await juliet.leave()
    await romeo.leave()
    proxy.close()


async def registers_changes_its_password_and_is_removed(options):
    bill = Client(options, "bill", password="Calliope")
    bill.register_plugin("xep_0077")

    async def register(form):
        fields = form["register"]["fields"]
        assert {"username", "password"} <= set(fields), fields
        answer = bill.Iq()
        answer["type"] = "set"
        answer["register"]["username"] = "bill"
        answer["register"]["password"] = "Calliope"
        await answer.send(timeout=PATIENCE)

    bill.add_event_handler("register", register)
    assert await bill.log_in() == "session_start"
    info = (await bill.plugin["xep_0030"].get_info(jid="localhost", timeout=PATIENCE))["disco_info"]
    assert "jabber:iq:register" in info["features"], info["features"]
    await bill.plugin["xep_0077"].change_password("Urania", timeout=PATIENCE)
    await bill.leave()
    former = Client(options, "bill", password="Calliope")
    assert await former.log_in() == "failed_all_auth"
    former.abort()
    bill = Client(options, "bill", password="Urania")
    bill.register_plugin("xep_0077")
    bill.plugin["xep_0077"].create_account = False
    assert await bill.log_in() == "session_start"
    gone = asyncio.ensure_future(bill.happens("disconnected"))
    await asyncio.sleep(0)
    await bill.plugin["xep_0077"].cancel_registration(timeout=PATIENCE)
    await gone
    bill.abort()
    nobody = Client(options, "bill", password="Urania")
    assert await nobody.log_in() == "failed_all_auth"
    nobody.abort()


CHECKS = [
    logs_in_with_every_mechanism,
    prefers_scram_over_plain,
    logs_in_over_direct_tls,
    a_wrong_password_is_refused,
    the_server_answers_disco_ping_and_version,
    two_accounts_talk_in_order,
    what_is_said_to_the_absent_waits_for_them,
    a_cut_connection_resumes_and_nothing_is_lost,
    registers_changes_its_password_and_is_removed,
]


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--c2s", type=int, required=True)
    parser.add_argument("--c2s-tls", type=int, required=True)
    parser.add_argument("--ca", required=True, help="the certificate that is trusted")
    parser.add_argument("--only", help="a part of the names of the checks to make")
    parser.add_argument("--debug", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.DEBUG if options.debug else logging.CRITICAL)
    for check in CHECKS:
        if options.only and options.only not in check.__name__:
            continue
        await check(options)
        print("ok", check.__name__, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
    sys.exit(0)
