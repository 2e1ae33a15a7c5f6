"""slixmpp as the interoperability checks use it: a client that can be waited for, and a cable that can be cut."""

import argparse
import asyncio
import logging

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


async def run(checks):
    """Makes the checks and prints a line for each that holds; ends with a traceback at the first that does not."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--c2s", type=int, required=True)
    parser.add_argument("--c2s-tls", type=int, required=True)
    parser.add_argument("--ca", required=True, help="the certificate that is trusted")
    parser.add_argument("--only", help="a part of the names of the checks to make")
    parser.add_argument("--debug", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.DEBUG if options.debug else logging.CRITICAL)
    for check in checks:
        if options.only and options.only not in check.__name__:
            continue
        await check(options)
        print("ok", check.__name__, flush=True)
