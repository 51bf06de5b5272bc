"""ccxt, its synchronous class: REST at Kraken or Bitfinex.

`REST` is where the exchange's API is to be found; without it, the exchange's own host. The synchronous class takes its
authority from REQUESTS_CA_BUNDLE, and that only with `requests_trust_env`: a path in `verify` becomes `True`.
"""

import os
import sys

import ccxt
from said import say

venue = sys.argv[1]
# A test need not wait as the exchange would have it.
settings = {"rateLimit": 20, "apiKey": os.environ["API_KEY"], "secret": os.environ["API_SECRET"], "requests_trust_env": True}
if "REST" in os.environ:
    rest = os.environ["REST"]
    settings["urls"] = {"api": {"public": rest, "private": rest}}
exchange = getattr(ccxt, venue)(settings)

say("markets", sorted(exchange.load_markets()))
say("ticker", exchange.fetch_ticker("BTC/USD")["last"])
say("book", exchange.fetch_order_book("BTC/USD")["bids"][0])
say("balance", exchange.fetch_balance()["USD"]["total"])
say("open", [order["id"] for order in exchange.fetch_open_orders("BTC/USD")])
placed = exchange.create_order("BTC/USD", "limit", "buy", 0.5, 100.1)
say("placed", placed["id"])
say("open", [order["id"] for order in exchange.fetch_open_orders("BTC/USD")])
exchange.cancel_order(placed["id"], "BTC/USD")
say("open", [order["id"] for order in exchange.fetch_open_orders("BTC/USD")])
exchange.create_order("BTC/USD", "limit", "buy", 0.5, 100.2)
exchange.create_order("BTC/USD", "limit", "buy", 0.5, 100.3)
say("open", len(exchange.fetch_open_orders("BTC/USD")))
exchange.cancel_all_orders()
say("open", len(exchange.fetch_open_orders("BTC/USD")))
say("done")
