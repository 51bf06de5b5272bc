"""python-kraken-sdk: Kraken's WebSocket v2. It fetches a token by itself, pings first, and appends `/v2` to both URLs."""

import asyncio
import os

from kraken.spot import SpotWSClient
from said import say

env = os.environ
where = {"rest_url": env["REST"], "ws_url": env["WS"], "auth_ws_url": env["WS_AUTH"]} if "REST" in env else {}
messages = asyncio.Queue()


async def expect(step, fits):
    while True:
        message = await messages.get()
        if fits(message):
            say(step, message)
            return message


def is_answer(method):
    return lambda it: it.get("method") == method and "success" in it


def is_told(order, kind):
    return lambda it: it.get("channel") == "executions" and any(
        told.get("order_id") == order and told["exec_type"] == kind for told in it["data"]
    )


async def main():
    client = SpotWSClient(key=env["API_KEY"], secret=env["API_SECRET"], callback=messages.put, **where)
    await client.start()
    await client.subscribe(params={"channel": "ticker", "symbol": ["BTC/USD"]})
    await expect("ticker", lambda it: it.get("channel") == "ticker")
    await client.subscribe(params={"channel": "balances"})
    await expect("balances", lambda it: it.get("channel") == "balances")
    await client.subscribe(params={"channel": "executions"})
    await expect("executions", lambda it: it.get("channel") == "executions")
    order = {"order_type": "limit", "side": "buy", "order_qty": 0.5, "symbol": "BTC/USD", "limit_price": 100.1}
    await client.send_message({"method": "add_order", "params": order})
    placed = (await expect("add_order", is_answer("add_order")))["result"]["order_id"]
    await expect("new", is_told(placed, "new"))
    await client.send_message({"method": "cancel_order", "params": {"order_id": [placed]}})
    await expect("cancel_order", is_answer("cancel_order"))
    await expect("canceled", is_told(placed, "canceled"))
    await client.send_message({"method": "cancel_all"})
    await expect("cancel_all", is_answer("cancel_all"))
    await client.close()
    say("done")


asyncio.run(asyncio.wait_for(main(), 45))
