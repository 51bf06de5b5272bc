"""python-kraken-sdk: Kraken over REST. A batch of orders goes as JSON, everything else as a form.

It has no option for an authority: REQUESTS_CA_BUNDLE says it here, SSL_CERT_FILE on its sockets.
"""

import os

from kraken.spot import Funding, Market, Trade, User
from said import say

where = {"url": os.environ["REST"]} if "REST" in os.environ else {}
keys = {"key": os.environ["API_KEY"], "secret": os.environ["API_SECRET"]}
market, user, trade, funding = Market(**where), User(**keys, **where), Trade(**keys, **where), Funding(**keys, **where)


def opened():
    return sorted(user.get_open_orders()["open"])


say("pairs", sorted(market.get_asset_pairs()))
say("ticker", market.get_ticker(pair="XXBTZUSD")["XXBTZUSD"]["c"][0])
say("balance", user.get_account_balance()["ZUSD"])
say("trade balance", user.get_trade_balance()["eb"])
say("volume", user.get_trade_volume(pair="XXBTZUSD")["currency"])
say("ledger", user.get_ledgers_info()["count"])
say("deposit methods", [method["method"] for method in funding.get_deposit_methods(asset="XBT")])
say("open", opened())
order = {"ordertype": "limit", "side": "buy", "volume": 0.5, "price": 100.1}
placed = trade.create_order(pair="XXBTZUSD", **order)["txid"][0]
say("placed", placed)
say("open", opened())
trade.cancel_order(txid=placed)
say("open", opened())
batch = [{"ordertype": "limit", "type": "buy", "volume": 0.5, "price": price} for price in (100.2, 100.3)]
placed = [order["txid"] for order in trade.create_order_batch(orders=batch, pair="XXBTZUSD")["orders"]]
say("placed", sorted(placed))
say("open", opened())
say("canceled", trade.cancel_order_batch(orders=placed)["count"])
say("open", opened())
say("done")
