"""Two devices of a stranger get to know each other with slixmpp: roster, presence, receipts, the absent, blocking, a cut cable.

Accounts juliet@localhost and romeo@localhost with the password "wherefore" must exist and know nobody. The checks build on each
other: they are made in this order.
"""

import asyncio

from client import PATIENCE, Client, Proxy, run
from slixmpp.exceptions import IqError


class Friend(Client):
    """A client that knows what it has been told of others, and answers no request by itself."""

    def __init__(self, options, name, **arguments):
        super().__init__(options, name, **arguments)
        self.roster.auto_authorize = None
        self.roster.auto_subscribe = False
        self.seen = []
        self.stanzas = []
        self.changed = asyncio.Event()
        for plugin in ("xep_0184", "xep_0191", "xep_0203", "xep_0280", "xep_0297"):
            self.register_plugin(plugin)
        for event in ("presence", "message", "message_error", "receipt_received", "roster_update", "blocked", "unblocked"):
            self.add_event_handler(event, lambda stanza, event=event: self.on(event, stanza))
        for event in ("carbon_received", "carbon_sent"):
            self.add_event_handler(event, lambda stanza, event=event: self.on(event, stanza))

    def on(self, event, stanza):
        self.seen.append((event, stanza))
        self.changed.set()

    async def sees(self, what, fits):
        """The first stanza, and forgets it, of an event that fits, once there is one."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for place, (event, stanza) in enumerate(self.seen):
                    if event == what and fits(stanza):
                        del self.seen[place]
                        return stanza
                self.changed.clear()
                await self.changed.wait()

    async def sees_presence(self, of, kind):
        return await self.sees("presence", lambda presence: presence["from"].bare == of and presence["type"] == kind)

    async def here(self, resumable=False):
        if resumable:
            self.register_plugin("xep_0198")
        assert await self.log_in() == "session_start"
        await self.get_roster(timeout=PATIENCE)
        return self

    async def settled(self):
        """Everything said before has been dealt with."""
        await self.plugin["xep_0199"].ping("localhost", timeout=PATIENCE)


JULIET, ROMEO = "juliet@localhost", "romeo@localhost"


async def strangers_do_not_reach_each_others_devices(options):
    juliet, romeo = await Friend(options, "juliet").here(), await Friend(options, "romeo").here()
    try:
        await juliet.plugin["xep_0199"].send_ping(romeo.boundjid, timeout=PATIENCE)
        raise AssertionError("a stranger's device answered")
    except IqError as error:
        assert error.condition == "service-unavailable", error.condition
    await juliet.leave()
    await romeo.leave()


async def they_make_friends(options):
    juliet, romeo = await Friend(options, "juliet").here(), await Friend(options, "romeo").here()
    juliet.send_presence(pto=ROMEO, ptype="subscribe", pstatus="It is me")
    await juliet.sees("roster_update", lambda iq: iq["roster"]["items"].get(ROMEO, {}).get("ask") == "subscribe")
    request = await romeo.sees_presence(JULIET, "subscribe")
    assert request["status"] == "It is me", request
    romeo.send_presence(pto=JULIET, ptype="subscribed")
    romeo.send_presence(pto=JULIET, ptype="subscribe")
    await juliet.sees_presence(ROMEO, "subscribed")
    await juliet.sees_presence(ROMEO, "available")
    await juliet.sees_presence(ROMEO, "subscribe")
    juliet.send_presence(pto=ROMEO, ptype="subscribed")
    await romeo.sees_presence(JULIET, "available")
    for one, other in ((juliet, ROMEO), (romeo, JULIET)):
        await one.sees("roster_update", lambda iq, other=other: iq["roster"]["items"].get(other, {}).get("subscription") == "both")
        assert one.client_roster[other]["subscription"] == "both", one.client_roster[other]
    assert await juliet.plugin["xep_0199"].ping(romeo.boundjid, timeout=PATIENCE) < PATIENCE
    await juliet.update_roster(ROMEO, name="Romeo Montague", groups=["Friends"], timeout=PATIENCE)
    await juliet.sees("roster_update", lambda iq: iq["roster"]["items"].get(ROMEO, {}).get("name") == "Romeo Montague")
    item = juliet.client_roster[ROMEO]
    assert (item["name"], list(item["groups"])) == ("Romeo Montague", ["Friends"]), item
    await juliet.leave()
    await romeo.sees_presence(JULIET, "unavailable")
    await romeo.leave()


async def they_see_each_other_come_change_and_go(options):
    juliet = await Friend(options, "juliet").here()
    romeo = await Friend(options, "romeo").here()
    await juliet.sees_presence(ROMEO, "available")
    await romeo.sees_presence(JULIET, "available")
    romeo.send_presence(pshow="dnd", pstatus="wooing", ppriority=5)
    presence = await juliet.sees_presence(ROMEO, "dnd")
    assert (presence["status"], presence["priority"]) == ("wooing", 5), presence
    await romeo.leave()
    await juliet.sees_presence(ROMEO, "unavailable")
    await juliet.leave()


async def messages_have_receipts(options):
    juliet, romeo = await Friend(options, "juliet").here(), await Friend(options, "romeo").here()
    await juliet.sees_presence(ROMEO, "available")
    message = juliet.make_message(ROMEO, "My lord, what light?", mtype="chat")
    message["request_receipt"] = True
    message.send()
    await romeo.sees("message", lambda received: received["body"] == "My lord, what light?")
    receipt = await juliet.sees("receipt_received", lambda receipt: receipt["receipt"] == message["id"])
    assert receipt["from"].bare == ROMEO
    await juliet.leave()
    await romeo.leave()


async def what_is_said_to_the_absent_comes_with_its_time(options):
    juliet = await Friend(options, "juliet").here()
    juliet.send_message(ROMEO, "Are you asleep?", mtype="chat")
    await juliet.settled()
    romeo = await Friend(options, "romeo").here()
    message = await romeo.sees("message", lambda message: message["body"] == "Are you asleep?")
    assert message["delay"]["stamp"] and message["delay"]["from"].bare == "localhost", message
    await juliet.leave()
    await romeo.leave()


async def other_resources_get_copies(options):
    balcony, chamber = await Friend(options, "juliet").here(), await Friend(options, "juliet", resource="chamber").here()
    romeo = await Friend(options, "romeo").here()
    await chamber.plugin["xep_0280"].enable()
    romeo.send_message(balcony.boundjid.full, "To the balcony", mtype="chat")
    copy = await chamber.sees("carbon_received", lambda _: True)
    assert copy["carbon_received"]["body"] == "To the balcony", copy
    balcony.send_message(romeo.boundjid.full, "From the balcony", mtype="chat")
    copy = await chamber.sees("carbon_sent", lambda _: True)
    assert copy["carbon_sent"]["body"] == "From the balcony", copy
    for one in (balcony, chamber, romeo):
        await one.leave()


async def who_is_blocked_sees_and_says_nothing(options):
    juliet, romeo = await Friend(options, "juliet").here(), await Friend(options, "romeo").here()
    await juliet.sees_presence(ROMEO, "available")
    await romeo.sees_presence(JULIET, "available")
    assert not (await juliet.plugin["xep_0191"].get_blocked_jids(timeout=PATIENCE))
    await juliet.plugin["xep_0191"].block(ROMEO, timeout=PATIENCE)
    assert (await juliet.plugin["xep_0191"].get_blocked_jids(timeout=PATIENCE)) == {ROMEO}
    await romeo.sees_presence(JULIET, "unavailable")
    romeo.send_message(JULIET, "Are you there?", mtype="chat")
    error = await romeo.sees("message_error", lambda error: error["from"].bare == JULIET)
    assert error["error"]["condition"] == "service-unavailable", error
    juliet.send_message(ROMEO, "I do not speak to you", mtype="chat")
    error = await juliet.sees("message_error", lambda error: error["from"].bare == ROMEO)
    assert error["error"]["condition"] == "not-acceptable", error
    await juliet.plugin["xep_0191"].unblock(ROMEO, timeout=PATIENCE)
    await romeo.sees_presence(JULIET, "available")
    romeo.send_message(JULIET, "And now?", mtype="chat")
    await juliet.sees("message", lambda message: message["body"] == "And now?")
    assert not [stanza for event, stanza in juliet.seen if event == "message" and stanza["body"] == "Are you there?"]
    await juliet.leave()
    await romeo.leave()


async def a_cut_cable_is_seen_by_nobody(options):
    proxy = Proxy(options)
    juliet = await Friend(options, "juliet", port=await proxy.open()).here(resumable=True)
    romeo = await Friend(options, "romeo").here()
    await romeo.sees_presence(JULIET, "available")
    cut = asyncio.ensure_future(juliet.happens("disconnected"))
    await asyncio.sleep(0)
    proxy.cut()
    await cut
    message = romeo.make_message(JULIET, "Wilt thou be gone?", mtype="chat")
    message["request_receipt"] = True
    message.send()
    await romeo.settled()
    assert await juliet.log_in() == "session_resumed"
    await juliet.sees("message", lambda message: message["body"] == "Wilt thou be gone?")
    await romeo.sees("receipt_received", lambda receipt: receipt["receipt"] == message["id"])
    assert not [stanza for event, stanza in romeo.seen if event == "presence" and stanza["type"] == "unavailable"]
    await juliet.leave()
    await romeo.leave()
    proxy.close()


async def they_part(options):
    juliet, romeo = await Friend(options, "juliet").here(), await Friend(options, "romeo").here()
    await romeo.sees_presence(JULIET, "available")
    await juliet.update_roster(ROMEO, subscription="remove", timeout=PATIENCE)
    await romeo.sees_presence(JULIET, "unavailable")
    await romeo.sees("roster_update", lambda iq: iq["roster"]["items"].get(JULIET, {}).get("subscription") == "none")
    await juliet.sees("roster_update", lambda iq: iq["roster"]["items"].get(ROMEO, {}).get("subscription") == "remove")
    await juliet.leave()
    await romeo.leave()


CHECKS = [
    strangers_do_not_reach_each_others_devices,
    they_make_friends,
    they_see_each_other_come_change_and_go,
    messages_have_receipts,
    what_is_said_to_the_absent_comes_with_its_time,
    other_resources_get_copies,
    who_is_blocked_sees_and_says_nothing,
    a_cut_cable_is_seen_by_nobody,
    they_part,
]


if __name__ == "__main__":
    asyncio.run(run(CHECKS))
