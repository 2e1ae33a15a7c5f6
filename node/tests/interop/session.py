"""What a stranger's client sees: slixmpp logs in, talks, loses its connection and goes on.

Accounts juliet@localhost and romeo@localhost with the password "wherefore" must exist.
"""

import asyncio
import ssl

from client import PATIENCE, Client, Proxy, run


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


if __name__ == "__main__":
    asyncio.run(run(CHECKS))
