"""krakenex: Kraken over REST. Always a form, the nonce last, in milliseconds."""

import os

import krakenex
from said import say

api = krakenex.API(os.environ["API_KEY"], os.environ["API_SECRET"])
# Or REQUESTS_CA_BUNDLE, which needs no line at all.
if "CA" in os.environ:
    api.session.verify = os.environ["CA"]
if "REST" in os.environ:
    api.uri = os.environ["REST"]


def ask(query, method, data=None):
    answer = query(method, data)
    if answer["error"]:
        raise SystemExit(f"{method}: {answer['error']}")
    return answer["result"]


say("pairs", sorted(ask(api.query_public, "AssetPairs")))
say("ticker", ask(api.query_public, "Ticker", {"pair": "XXBTZUSD"})["XXBTZUSD"]["c"][0])
say("balance", ask(api.query_private, "Balance")["ZUSD"])
say("open", list(ask(api.query_private, "OpenOrders")["open"]))
order = {"pair": "XBTUSD", "type": "buy", "ordertype": "limit", "price": "100.1", "volume": "0.5"}
# A nested name, as only a form has it.
order["close[ordertype]"], order["close[price]"] = "limit", "200.1"
placed = ask(api.query_private, "AddOrder", order)["txid"][0]
say("placed", placed)
say("open", list(ask(api.query_private, "OpenOrders")["open"]))
ask(api.query_private, "CancelOrder", {"txid": placed})
say("open", list(ask(api.query_private, "OpenOrders")["open"]))
ask(api.query_private, "AddOrder", order)
say("canceled", ask(api.query_private, "CancelAll")["count"])
say("open", list(ask(api.query_private, "OpenOrders")["open"]))
say("done")
