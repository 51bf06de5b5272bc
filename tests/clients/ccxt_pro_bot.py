"""ccxt.pro: sockets at Kraken or Bitfinex. Orders go over REST, as they do for most who use it, and come back over the socket.

At Kraken the URLs of WebSocket v2 must contain `v2`, or the library pings in the words of v1.
"""

import asyncio
import os
import sys

import ccxt.pro as ccxt
from said import say

env = os.environ
# A test need not wait as the exchange would have it.
settings = {"rateLimit": 20, "apiKey": env["API_KEY"], "secret": env["API_SECRET"], "cafile": env["CA"]}
if "REST" in env:
    rest, public, private = env["REST"], env["WS"], env["WS_AUTH"]
    sockets = {
        "kraken": {"public": public, "private": private, "publicV2": public + "/v2", "privateV2": private + "/v2"},
        "bitfinex": {"public": public + "/ws/2", "private": private + "/ws/2"},
    }
    settings["urls"] = {"api": {"public": rest, "private": rest, "ws": sockets[sys.argv[1]]}}


async def main(exchange):
    await exchange.load_markets()
    book = await exchange.watch_order_book("BTC/USD")
    say("book", [book["bids"][0][:2], book["asks"][0][:2]])
    # The first of the socket is a snapshot, or what an order did to it: ask for it before there is one.
    balance = asyncio.ensure_future(asyncio.wait_for(exchange.watch_balance(), 10))
    orders = asyncio.ensure_future(exchange.watch_orders())
    try:
        balance = await balance
    except asyncio.TimeoutError:
        # At Bitfinex, ccxt drops a snapshot that it reads together with the login's answer: see docs/bots.md.
        if exchange.id != "bitfinex":
            raise
        balance = await exchange.fetch_balance()
    say("balance", balance["USD"]["total"])
    placed = await exchange.create_order("BTC/USD", "limit", "buy", 0.5, 100.1)
    say("placed", placed["id"])
    is_canceled = False
    while True:
        for order in await orders:
            if order["id"] == placed["id"]:
                say(f"order {order['status']}", order["id"])
                if order["status"] == "canceled":
                    return
        # Before the cancel: the socket may be faster than its answer, and tells nobody who does not watch.
        orders = asyncio.ensure_future(exchange.watch_orders())
        if not is_canceled:
            # Lets the watch begin.
            await asyncio.sleep(0)
            await exchange.cancel_order(placed["id"], "BTC/USD")
            is_canceled = True


async def run():
    async with getattr(ccxt, sys.argv[1])(settings) as exchange:
        await asyncio.wait_for(main(exchange), 45)
        say("done")


asyncio.run(run())
