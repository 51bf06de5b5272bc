"""A bot on the library `aiohttp`."""

import aiohttp
from aiohttp.abc import AbstractResolver
from trade import Bot, Closed, dial, main, trust, url


class HostsFile(AbstractResolver):
    """Answers as the hosts file would: every name is the proxy's machine."""

    async def resolve(self, host, port=0, family=0):
        address, port = dial()
        return [{"hostname": host, "host": address, "port": port, "family": family, "proto": 0, "flags": 0}]

    async def close(self):
        pass


async def connected(flow):
    connector = aiohttp.TCPConnector(ssl=trust(), resolver=HostsFile() if dial() else None)
    async with aiohttp.ClientSession(connector=connector) as session, session.ws_connect(url()) as socket:

        async def receive():
            message = await socket.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                return message.data
            raise Closed(socket.close_code, message.extra)

        await flow(Bot(socket.send_str, receive))


main(connected)
