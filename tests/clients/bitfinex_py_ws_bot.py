"""bitfinex-api-py: Bitfinex's WebSocket. It logs in at once, and opens further sockets for public channels."""

import asyncio
import os

from bfxapi import Client
from said import say

where = {"wss_host": os.environ["WS_AUTH"] + "/ws/2"} if "WS_AUTH" in os.environ else {}
client = Client(api_key=os.environ["API_KEY"], api_secret=os.environ["API_SECRET"], **where)
seen = {"wallets": asyncio.Event(), "ticker": asyncio.Event(), "orders": asyncio.Event()}


@client.wss.on("authenticated")
async def on_authenticated(event):
    say("auth", event["status"])
    await client.wss.subscribe("ticker", symbol="tBTCUSD")
    for waited in seen.values():
        await waited.wait()
    await client.wss.inputs.submit_order(type="EXCHANGE LIMIT", symbol="tBTCUSD", amount="0.5", price="100.1")


@client.wss.on("wallet_snapshot")
def on_wallets(wallets):
    say("wallets", {wallet.currency: wallet.balance for wallet in wallets})
    seen["wallets"].set()


@client.wss.on("order_snapshot")
def on_orders(orders):
    say("orders", [order.id for order in orders])
    seen["orders"].set()


@client.wss.on("t_ticker_update")
def on_ticker(subscription, ticker):
    if not seen["ticker"].is_set():
        say("ticker", ticker.last_price)
        seen["ticker"].set()


@client.wss.on("on-req-notification")
def on_notification(notification):
    say("on-req", notification.status)


@client.wss.on("order_new")
async def on_new(order):
    say("new", order.id)
    await client.wss.inputs.cancel_order(id=order.id)


@client.wss.on("oc-req-notification")
def on_cancel_notification(notification):
    say("oc-req", notification.status)


@client.wss.on("order_cancel")
async def on_canceled(order):
    say("canceled", order.id)
    say("done")
    await client.wss.close()


asyncio.run(asyncio.wait_for(client.wss.start(), 45))
