"""bitfinex-api-py: Bitfinex over REST. A call without arguments has no body, and signs none."""

import os

from bfxapi import Client
from said import say

where = {"rest_host": os.environ["REST"] + "/v2"} if "REST" in os.environ else {}
client = Client(api_key=os.environ["API_KEY"], api_secret=os.environ["API_SECRET"], **where)
public, auth = client.rest.public, client.rest.auth


def opened():
    return [order.id for order in auth.get_orders(symbol="tBTCUSD")]


say("status", public.get_platform_status().status)
say("ticker", public.get_t_ticker("tBTCUSD").last_price)
say("book", public.get_t_book("tBTCUSD", "P0")[0].price)
say("balance", [wallet.balance for wallet in auth.get_wallets() if wallet.currency == "USD"][0])
say("open", opened())
placed = auth.submit_order(type="EXCHANGE LIMIT", symbol="tBTCUSD", amount="0.5", price="100.1")
say("placed", placed.data.id)
say("open", opened())
say("updated", auth.update_order(id=placed.data.id, price="100.2").data.price)
auth.cancel_order(id=placed.data.id)
say("open", opened())
auth.submit_order(type="EXCHANGE LIMIT", symbol="tBTCUSD", amount="0.5", price="100.3")
say("canceled", len(auth.cancel_order_multi(all=True).data))
say("open", opened())
say("history", [order.id for order in auth.get_orders_history(symbol="tBTCUSD")][-1:])
say("done")
