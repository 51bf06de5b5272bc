"""A bot on the library `websockets`."""

from trade import Bot, Closed, dial, main, trust, url
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def connected(flow):
    host, port = dial() or (None, None)
    where = {"host": host, "port": port} if host else {}
    async with connect(url(), ssl=trust(), proxy=None, **where) as socket:
        try:
            await flow(Bot(socket.send, socket.recv))
        except ConnectionClosed as end:
            raise Closed(end.rcvd.code, end.rcvd.reason) if end.rcvd else Closed(1006, "")


main(connected)
