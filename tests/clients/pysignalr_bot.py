"""pysignalr: ProjectX's hubs. It negotiates, and shows its bearer in the address alone on its first connection."""

import asyncio
import os

from hub_trade import Events, Rest, hub, market_subscriptions, trade, trust, user_subscriptions
from pysignalr.client import SignalRClient

rest = Rest()
account = rest.account()
events = Events()


def client(name, event, handler, subscriptions):
    url = f"{hub(name)}?access_token={rest.token}"
    connection = SignalRClient(url, access_token_factory=lambda: rest.token, ssl=trust())

    async def on_event(arguments):
        handler(arguments)

    async def on_open():
        for method, arguments in subscriptions:
            await connection.send(method, arguments)

    connection.on(event, on_event)
    connection.on_open(on_open)
    return connection


async def main():
    connections = [
        client("user", "GatewayUserOrder", events.order, list(user_subscriptions(account))),
        client("market", "GatewayQuote", events.quote, list(market_subscriptions())),
    ]
    running = [asyncio.create_task(connection.run()) for connection in connections]
    trading = asyncio.create_task(asyncio.to_thread(trade, rest, account, events))
    done, _ = await asyncio.wait([trading, *running], return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    # It reconnects for ever.
    os._exit(0)


asyncio.run(main())
