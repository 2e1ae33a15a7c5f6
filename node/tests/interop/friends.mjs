// Two devices of a stranger get to know each other with xmpp.js: roster, presence, receipts, the absent, blocking, a cut cable.
//
// Accounts juliet@localhost and romeo@localhost with the password "wherefore" must exist and know nobody. The checks build on each
// other: they are made in this order. Prints a line for each that holds; ends at the first that does not.

import assert from "node:assert/strict";
import net from "node:net";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const PATIENCE = 20_000; // milliseconds for anything that has to happen

const { values: options } = parseArgs({
  options: {
    host: { type: "string" },
    c2s: { type: "string" },
    "c2s-tls": { type: "string" },
    ca: { type: "string" },
    modules: { type: "string" },
    only: { type: "string", default: "" },
  },
});
const { client, xml } = await import(pathToFileURL(path.join(options.modules, "@xmpp/client/index.js")));

const NS_ROSTER = "jabber:iq:roster";
const NS_RECEIPTS = "urn:xmpp:receipts";
const NS_BLOCKING = "urn:xmpp:blocking";
const [JULIET, ROMEO] = ["juliet@localhost", "romeo@localhost"];
const bare = (address) => address?.split("/")[0];

/** A device that keeps what came until somebody has looked at it. */
class Device {
  constructor(name, { port = options.c2s, resource = "test" } = {}) {
    this.came = [];
    this.waiting = [];
    this.asked = 0;
    this.xmpp = client({
      service: `xmpp://${options.host}:${port}`,
      domain: "localhost",
      username: name,
      password: "wherefore",
      resource,
    });
    this.xmpp.on("error", () => {});
    this.xmpp.on("stanza", (stanza) => this.take(stanza));
    for (const event of ["disconnect", "online"]) this.xmpp.on(event, () => this.take({ event }));
    this.xmpp.streamManagement.on("resumed", () => this.take({ event: "resumed" }));
    this.xmpp.timeout = PATIENCE;
    this.xmpp.reconnect.delay = 50;
  }

  take(what) {
    this.came.push(what);
    this.waiting.forEach((look) => look());
  }

  /** The first that fits of what came and was not looked at, once it has come. */
  sees(what, fits) {
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => {
        reject(new Error(`${what} did not come; what came: ${this.came.map(String).join("\n")}`));
      }, PATIENCE);
      const look = () => {
        const place = this.came.findIndex(fits);
        if (place < 0) return;
        clearTimeout(late);
        this.waiting = this.waiting.filter((other) => other !== look);
        resolve(this.came.splice(place, 1)[0]);
      };
      this.waiting.push(look);
      look();
    });
  }

  happens(event) {
    return this.sees(event, (what) => what.event === event);
  }

  seesPresence(from, type) {
    const fits = (stanza) => stanza.name === "presence" && bare(stanza.attrs.from) === from && stanza.attrs.type === type;
    return this.sees(`presence ${type} of ${from}`, fits);
  }

  seesMessage(text) {
    return this.sees(`message ${text}`, (stanza) => stanza.name === "message" && stanza.getChildText?.("body") === text && stanza.attrs.type !== "error");
  }

  seesError(from) {
    return this.sees(`error of ${from}`, (stanza) => stanza.attrs?.type === "error" && bare(stanza.attrs.from) === from && stanza.name === "message");
  }

  seesPush(jid, subscription) {
    const item = (stanza) => stanza.getChild?.("query", NS_ROSTER)?.getChild("item")?.attrs;
    return this.sees(`push of ${jid}`, (stanza) => stanza.attrs?.type === "set" && item(stanza)?.jid === jid && item(stanza)?.subscription === subscription);
  }

  async here() {
    await this.xmpp.start();
    await this.roster();
    await this.send(xml("presence"));
    return this;
  }

  async leave() {
    await this.xmpp.stop();
  }

  send(element) {
    return this.xmpp.send(element);
  }

  presence(to, type) {
    return this.send(xml("presence", { to, type }));
  }

  say(to, text, ...more) {
    return this.send(xml("message", { to, type: "chat", id: text }, xml("body", {}, text), ...more));
  }

  get(element, to) {
    return this.xmpp.iqCaller.get(element, to, PATIENCE);
  }

  set(element) {
    return this.xmpp.iqCaller.set(element, undefined, PATIENCE);
  }

  /** The condition with which what was asked is refused. Sent by hand: an error that comes before `send` has ended, xmpp.js's caller leaves unhandled. */
  async refusal(element, to) {
    const id = `refused-${this.asked++}`;
    await this.send(xml("iq", { type: "get", to, id }, element));
    const answer = await this.sees(`answer ${id}`, (stanza) => stanza.name === "iq" && stanza.attrs.id === id);
    assert.equal(answer.attrs.type, "error");
    return answer.getChild("error").getChildElements()[0].name;
  }

  async roster() {
    const items = (await this.get(xml("query", NS_ROSTER))).getChildren("item");
    return new Map(items.map((item) => [item.attrs.jid, item]));
  }

  /** Everything said before has been dealt with. */
  settled() {
    return this.get(xml("ping", "urn:xmpp:ping"), "localhost");
  }
}

/** Stands between client and broker, and can cut the cable: both ends see a reset, nothing is said goodbye to. */
class Proxy {
  constructor() {
    this.cables = [];
  }

  open() {
    this.server = net.createServer((near) => {
      const far = net.connect(Number(options.c2s), options.host);
      for (const [one, other] of [[near, far], [far, near]]) {
        one.on("error", () => {}).on("close", () => other.destroy());
        one.pipe(other);
      }
      this.cables.push(near, far);
    });
    return new Promise((resolve) => {
      this.server.listen(0, options.host, () => resolve(this.server.address().port));
    });
  }

  cut() {
    this.cables.splice(0).forEach((cable) => cable.resetAndDestroy());
  }

  close() {
    this.cut();
    this.server.close();
  }
}

async function both(ofJuliet, ofRomeo) {
  return [await new Device("juliet", ofJuliet).here(), await new Device("romeo", ofRomeo).here()];
}

async function leave(...devices) {
  for (const device of devices) await device.leave();
}

const checks = {
  async logs_in_and_gets_an_empty_roster() {
    const juliet = await new Device("juliet").here();
    assert.equal((await juliet.roster()).size, 0);
    await juliet.leave();
  },

  async strangers_do_not_reach_each_others_devices() {
    const [juliet, romeo] = await both();
    assert.equal(await juliet.refusal(xml("ping", "urn:xmpp:ping"), `${ROMEO}/test`), "service-unavailable");
    await leave(juliet, romeo);
  },

  async they_make_friends() {
    const [juliet, romeo] = await both();
    await juliet.presence(ROMEO, "subscribe");
    await juliet.seesPush(ROMEO, "none");
    await romeo.seesPresence(JULIET, "subscribe");
    await romeo.presence(JULIET, "subscribed");
    await romeo.presence(JULIET, "subscribe");
    await juliet.seesPresence(ROMEO, "subscribed");
    await juliet.seesPush(ROMEO, "to");
    await juliet.seesPresence(ROMEO, undefined);
    await juliet.seesPresence(ROMEO, "subscribe");
    await juliet.presence(ROMEO, "subscribed");
    await juliet.seesPush(ROMEO, "both");
    await romeo.seesPush(JULIET, "both");
    await romeo.seesPresence(JULIET, undefined);
    await juliet.get(xml("ping", "urn:xmpp:ping"), `${ROMEO}/test`);
    await juliet.set(xml("query", NS_ROSTER, xml("item", { jid: ROMEO, name: "Romeo" }, xml("group", {}, "Friends"))));
    const item = (await juliet.roster()).get(ROMEO);
    assert.deepEqual([item.attrs.name, item.attrs.subscription, item.getChildText("group")], ["Romeo", "both", "Friends"]);
    await leave(juliet, romeo);
  },

  async they_see_each_other_come_change_and_go() {
    const [juliet, romeo] = await both();
    await juliet.seesPresence(ROMEO, undefined);
    await romeo.seesPresence(JULIET, undefined);
    await romeo.send(xml("presence", {}, xml("show", {}, "dnd"), xml("status", {}, "wooing")));
    const presence = await juliet.seesPresence(ROMEO, undefined);
    assert.deepEqual([presence.getChildText("show"), presence.getChildText("status")], ["dnd", "wooing"]);
    await romeo.leave();
    await juliet.seesPresence(ROMEO, "unavailable");
    await juliet.leave();
  },

  async messages_have_receipts() {
    const [juliet, romeo] = await both();
    await juliet.say(ROMEO, "My lord, what light?", xml("request", NS_RECEIPTS));
    const message = await romeo.seesMessage("My lord, what light?");
    assert.ok(message.getChild("request", NS_RECEIPTS));
    const { id, from } = message.attrs;
    await romeo.send(xml("message", { to: from }, xml("received", { xmlns: NS_RECEIPTS, id })));
    await juliet.sees("a receipt", (stanza) => stanza.getChild?.("received", NS_RECEIPTS)?.attrs.id === id);
    await leave(juliet, romeo);
  },

  async what_is_said_to_the_absent_comes_with_its_time() {
    const juliet = await new Device("juliet").here();
    await juliet.say(ROMEO, "Are you asleep?");
    await juliet.settled();
    const romeo = await new Device("romeo").here();
    const delay = (await romeo.seesMessage("Are you asleep?")).getChild("delay", "urn:xmpp:delay");
    assert.ok(Date.now() - Date.parse(delay.attrs.stamp) < PATIENCE, delay.toString());
    await leave(juliet, romeo);
  },

  async who_is_blocked_sees_and_says_nothing() {
    const [juliet, romeo] = await both();
    await romeo.seesPresence(JULIET, undefined);
    assert.equal((await juliet.get(xml("blocklist", NS_BLOCKING))).getChildren("item").length, 0);
    await juliet.set(xml("block", NS_BLOCKING, xml("item", { jid: ROMEO })));
    await romeo.seesPresence(JULIET, "unavailable");
    await romeo.say(JULIET, "Are you there?");
    assert.ok((await romeo.seesError(JULIET)).getChild("error").getChild("service-unavailable"));
    await juliet.say(ROMEO, "I do not speak to you");
    assert.ok((await juliet.seesError(ROMEO)).getChild("error").getChild("blocked"));
    await juliet.set(xml("unblock", NS_BLOCKING, xml("item", { jid: ROMEO })));
    await romeo.seesPresence(JULIET, undefined);
    await romeo.say(JULIET, "And now?");
    await juliet.seesMessage("And now?");
    assert.ok(!juliet.came.some((stanza) => stanza.getChildText?.("body") === "Are you there?"));
    await leave(juliet, romeo);
  },

  async a_cut_cable_is_seen_by_nobody() {
    const proxy = new Proxy();
    const [juliet, romeo] = await both({ port: await proxy.open() });
    await romeo.seesPresence(JULIET, undefined);
    assert.ok(juliet.xmpp.streamManagement.id, "the session cannot be resumed");
    proxy.cut();
    await juliet.happens("disconnect");
    await romeo.say(JULIET, "Wilt thou be gone?");
    await juliet.happens("resumed");
    await juliet.seesMessage("Wilt thou be gone?");
    await juliet.say(ROMEO, "It is not yet near day");
    await romeo.seesMessage("It is not yet near day");
    const left = (stanza) => stanza.name === "presence" && stanza.attrs.type === "unavailable";
    assert.ok(!romeo.came.some(left), "romeo saw her leave");
    await leave(juliet, romeo);
    proxy.close();
  },

  async they_part() {
    const [juliet, romeo] = await both();
    await romeo.seesPresence(JULIET, undefined);
    await juliet.set(xml("query", NS_ROSTER, xml("item", { jid: ROMEO, subscription: "remove" })));
    await romeo.seesPresence(JULIET, "unavailable");
    await romeo.seesPush(JULIET, "none");
    assert.ok(!(await juliet.roster()).has(ROMEO));
    await leave(juliet, romeo);
  },
};

for (const [name, check] of Object.entries(checks)) {
  if (!name.includes(options.only)) continue;
  await check();
  console.log("ok", name);
}
process.exit(0);
