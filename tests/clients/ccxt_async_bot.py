"""ccxt, its asynchronous class: REST at Kraken or Bitfinex. It knows its authority by the option `cafile` alone."""

import asyncio
import os
import sys

import ccxt.async_support as ccxt
from said import say

# A test need not wait as the exchange would have it.
settings = {"rateLimit": 20, "apiKey": os.environ["API_KEY"], "secret": os.environ["API_SECRET"], "cafile": os.environ["CA"]}
if "REST" in os.environ:
    rest = os.environ["REST"]
    settings["urls"] = {"api": {"public": rest, "private": rest}}


async def main(exchange):
    say("markets", sorted(await exchange.load_markets()))
    say("ticker", (await exchange.fetch_ticker("BTC/USD"))["last"])
    # Calls side by side: their nonces reach the exchange in whatever order the network likes.
    balance, orders = await asyncio.gather(exchange.fetch_balance(), exchange.fetch_open_orders("BTC/USD"))
    say("balance", balance["USD"]["total"])
    say("open", [order["id"] for order in orders])
    placed = await exchange.create_order("BTC/USD", "limit", "buy", 0.5, 100.1)
    say("placed", placed["id"])
    say("open", [order["id"] for order in await exchange.fetch_open_orders("BTC/USD")])
    await exchange.cancel_order(placed["id"], "BTC/USD")
    say("open", [order["id"] for order in await exchange.fetch_open_orders("BTC/USD")])
    say("done")


async def run():
    async with getattr(ccxt, sys.argv[1])(settings) as exchange:
        await main(exchange)


asyncio.run(run())
