"""Two devices of a stranger publish and subscribe with slixmpp's xep_0060.

Accounts juliet@localhost and romeo@localhost with the password "wherefore" must exist. The checks build on each other: they are made
in this order.
"""

import asyncio

from client import PATIENCE, Client, run
from slixmpp.exceptions import IqError
from slixmpp.xmlstream import ET

SERVICE = "pubsub.localhost"
NODE = "sensors/temperature"
NS = "urn:example:temperature"
EVENTS = (
    "pubsub_publish",
    "pubsub_retract",
    "pubsub_purge",
    "pubsub_delete",
    "pubsub_config",
    "pubsub_subscription",
)


class Device(Client):
    """A client that keeps what pubsub tells it."""

    def __init__(self, options, name, **arguments):
        super().__init__(options, name, **arguments)
        self.events = asyncio.Queue()
        for plugin in ("xep_0004", "xep_0030", "xep_0059", "xep_0060"):
            self.register_plugin(plugin)
        for event in EVENTS:
            self.add_event_handler(event, lambda message, event=event: self.events.put_nowait((event, message)))

    async def here(self):
        assert await self.log_in() == "session_start"
        await self.get_roster(timeout=PATIENCE)
        return self

    @property
    def pubsub(self):
        return self.plugin["xep_0060"]

    async def hears(self, kind):
        event, message = await asyncio.wait_for(self.events.get(), PATIENCE)
        assert event == kind, (event, message)
        return message


def reading(degrees):
    payload = ET.Element(f"{{{NS}}}reading")
    payload.text = str(degrees)
    return payload


async def refused(condition, request):
    try:
        await request
    except IqError as error:
        assert error.condition == condition, error.condition
        return error
    raise AssertionError("it was not refused")


async def the_service_is_found(juliet, romeo):
    items = await romeo.plugin["xep_0030"].get_items(jid="localhost", timeout=PATIENCE)
    assert SERVICE in [item[0] for item in items["disco_items"]["items"]], items
    info = await romeo.plugin["xep_0030"].get_info(jid=SERVICE, timeout=PATIENCE)
    assert ("pubsub", "service") in [identity[:2] for identity in info["disco_info"]["identities"]], info
    assert "http://jabber.org/protocol/pubsub#publish" in info["disco_info"]["features"], info


async def a_node_is_made(juliet, romeo):
    form = juliet.plugin["xep_0004"].make_form(ftype="submit")
    form.add_field(var="FORM_TYPE", ftype="hidden", value="http://jabber.org/protocol/pubsub#node_config")
    form.add_field(var="pubsub#title", value="Temperature")
    await juliet.pubsub.create_node(SERVICE, NODE, config=form, timeout=PATIENCE)
    await refused("conflict", romeo.pubsub.create_node(SERVICE, NODE, timeout=PATIENCE))
    config = await juliet.pubsub.get_node_config(SERVICE, NODE, timeout=PATIENCE)
    values = config["pubsub_owner"]["configure"]["form"].get_values()
    assert values["pubsub#title"] == "Temperature", values
    instant = await juliet.pubsub.create_node(SERVICE, None, timeout=PATIENCE)
    name = instant["pubsub"]["create"]["node"]
    await juliet.pubsub.delete_node(SERVICE, name, timeout=PATIENCE)


async def items_are_published(juliet, romeo):
    answer = await romeo.pubsub.subscribe(SERVICE, NODE, timeout=PATIENCE)
    assert answer["pubsub"]["subscription"]["subscription"] == "subscribed", answer
    for degrees in range(20):
        await juliet.pubsub.publish(SERVICE, NODE, id=f"at-{degrees}", payload=reading(degrees), timeout=PATIENCE)
    for degrees in range(20):
        message = await romeo.hears("pubsub_publish")
        item = message["pubsub_event"]["items"]["item"]
        assert (item["id"], item["payload"].text) == (f"at-{degrees}", str(degrees)), message
    await refused("forbidden", romeo.pubsub.publish(SERVICE, NODE, payload=reading(0), timeout=PATIENCE))


async def items_are_retrieved(juliet, romeo):
    some = await romeo.pubsub.get_items(SERVICE, NODE, max_items=3, timeout=PATIENCE)
    assert [item["id"] for item in some["pubsub"]["items"]] == ["at-17", "at-18", "at-19"], some
    one = await romeo.pubsub.get_item(SERVICE, NODE, "at-7", timeout=PATIENCE)
    assert one["pubsub"]["items"]["item"]["payload"].text == "7", one


async def items_are_retracted_and_purged(juliet, romeo):
    await juliet.pubsub.retract(SERVICE, NODE, "at-7", notify=True, timeout=PATIENCE)
    message = await romeo.hears("pubsub_retract")
    assert message["pubsub_event"]["items"]["retract"]["id"] == "at-7", message
    await juliet.pubsub.purge(SERVICE, NODE, timeout=PATIENCE)
    await romeo.hears("pubsub_purge")
    none = await romeo.pubsub.get_items(SERVICE, NODE, timeout=PATIENCE)
    assert not list(none["pubsub"]["items"]), none


async def somebody_is_let_in(juliet, romeo):
    await juliet.pubsub.modify_affiliations(SERVICE, NODE, [("romeo@localhost", "publisher")], timeout=PATIENCE)
    await romeo.pubsub.publish(SERVICE, NODE, id="his", payload=reading(1), timeout=PATIENCE)
    await romeo.hears("pubsub_publish")
    own = await romeo.pubsub.get_affiliations(SERVICE, timeout=PATIENCE)
    assert own["pubsub"]["affiliations"]["affiliation"]["affiliation"] == "publisher", own


async def a_node_is_deleted(juliet, romeo):
    await refused("forbidden", romeo.pubsub.delete_node(SERVICE, NODE, timeout=PATIENCE))
    await juliet.pubsub.delete_node(SERVICE, NODE, timeout=PATIENCE)
    await romeo.hears("pubsub_delete")
    await refused("item-not-found", romeo.pubsub.get_items(SERVICE, NODE, timeout=PATIENCE))


CHECKS = (
    the_service_is_found,
    a_node_is_made,
    items_are_published,
    items_are_retrieved,
    items_are_retracted_and_purged,
    somebody_is_let_in,
    a_node_is_deleted,
)


def with_devices(check):
    async def checked(options):
        juliet, romeo = await Device(options, "juliet").here(), await Device(options, "romeo").here()
        await check(juliet, romeo)
        await juliet.leave()
        await romeo.leave()

    checked.__name__ = check.__name__
    return checked


if __name__ == "__main__":
    asyncio.run(run([with_devices(check) for check in CHECKS]))
