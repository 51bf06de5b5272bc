"""pysignalr: ProjectX's hubs. It negotiates, and shows its bearer in the address alone on its first connection."""

import asyncio
import os
import threading

from hub_trade import Events, Rest, hub, market_subscriptions, trade, trust, user_subscriptions
from pysignalr.client import SignalRClient

rest = Rest()
account = rest.account()
events = Events()
subscribed = threading.Event()


async def on_subscribed(_):
    subscribed.set()


def client(name, event, handler, subscriptions, heard=None):
    url = f"{hub(name)}?access_token={rest.token}"
    connection = SignalRClient(url, access_token_factory=lambda: rest.token, ssl=trust())

    async def on_event(arguments):
        handler(arguments)

    async def on_open():
        *most, last = subscriptions
        for method, arguments in most:
            await connection.send(method, arguments)
        await connection.send(*last, heard)

    connection.on(event, on_event)
    connection.on_open(on_open)
    return connection


def begin():
    # The hubs open side by side: an order before the user's is subscribed would be told to nobody.
    assert subscribed.wait(20), "the user hub did not answer"
    trade(rest, account, events)


async def main():
    connections = [
        client("user", "GatewayUserOrder", events.order, list(user_subscriptions(account)), on_subscribed),
        client("market", "GatewayQuote", events.quote, list(market_subscriptions())),
    ]
    running = [asyncio.create_task(connection.run()) for connection in connections]
    trading = asyncio.create_task(asyncio.to_thread(begin))
    done, _ = await asyncio.wait([trading, *running], return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    # It reconnects for ever.
    os._exit(0)


asyncio.run(main())
