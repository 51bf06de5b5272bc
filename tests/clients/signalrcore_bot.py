"""signalrcore: ProjectX's hubs. It negotiates unless it is told not to, and puts its bearer into every record."""

import os
import sys
import threading

from hub_trade import Events, Rest, hub, market_subscriptions, trade, trust, user_subscriptions
from signalrcore.hub_connection_builder import HubConnectionBuilder

rest = Rest()
account = rest.account()
events = Events()


def connect(name, handlers, subscriptions):
    options = {"ssl_context": trust()}
    url = hub(name)
    if "skip" in sys.argv:
        # As the documentation has it, and then without a header.
        options["skip_negotiation"] = True
        url = f"{url}?access_token={rest.token}"
    else:
        options["access_token_factory"] = lambda: rest.token
    connection = HubConnectionBuilder().with_url(url, options=options).build()
    opened = threading.Event()
    connection.on_open(opened.set)
    for event, handler in handlers.items():
        connection.on(event, handler)
    connection.start()
    assert opened.wait(20), f"the {name} hub did not open"
    for method, arguments in subscriptions:
        connection.send(method, arguments)
    return connection


user = connect("user", {"GatewayUserOrder": events.order}, user_subscriptions(account))
market = connect("market", {"GatewayQuote": events.quote}, market_subscriptions())
trade(rest, account, events)
# Its `stop` waits for the peer to close, which it never asks for.
os._exit(0)
