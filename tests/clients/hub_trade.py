"""What every Python bot on ProjectX's hubs does: log in, subscribe, and three times place an order and cancel it.

A hub library only carries the socket; REST is the bot's own, as it is in its users' programs. What it reads:
  REST       https://localhost:8601
  HUB        https://localhost:8601/hubs
  USER_NAME  the user, and
  API_KEY    its key
  CA         the authority that connections must be signed by
  PAUSE      seconds between two rounds: longer than a token lives
"""

import json
import os
import queue
import ssl
import time
import urllib.error
import urllib.request

from said import say

CONTRACT = "CON.F.US.EP.Z26"
PATIENCE = 20  # seconds for each thing that must come
ROUNDS = 3


def trust():
    return ssl.create_default_context(cafile=os.environ["CA"])


def hub(name):
    return f"{os.environ['HUB']}/{name}"


class Rest:
    """The REST API, with a token that is had again when it is refused."""

    def __init__(self):
        self.token = None
        self.log_in()

    def log_in(self):
        login = {"userName": os.environ["USER_NAME"], "apiKey": os.environ["API_KEY"]}
        self.token = None
        self.token = self.ask("Auth/loginKey", login)["token"]

    def ask(self, operation, body):
        try:
            return self.post(operation, body)
        except urllib.error.HTTPError as error:
            if error.code != 401 or self.token is None:
                raise
        say("renewed")
        self.log_in()
        return self.post(operation, body)

    def post(self, operation, body):
        headers = {"Content-Type": "application/json", "Accept": "text/plain"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        url = f"{os.environ['REST']}/api/{operation}"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
        with urllib.request.urlopen(request, timeout=PATIENCE, context=trust()) as answer:
            told = json.load(answer)
        if not told["success"]:
            raise RuntimeError(f"{operation}: {told}")
        return told

    def account(self):
        return self.ask("Account/search", {"onlyActiveAccounts": True})["accounts"][0]["id"]


class Events:
    """What the hubs tell, for whoever waits for it."""

    def __init__(self):
        self.came = queue.Queue()

    def order(self, arguments):
        told = arguments[0]
        # Wrapped in practice, plain in the documentation.
        self.came.put(("order", told.get("data", told)))

    def quote(self, arguments):
        self.came.put(("quote", {"contract": arguments[0], **arguments[1]}))

    def expect(self, kind, fits=lambda data: True):
        while True:
            came, data = self.came.get(timeout=PATIENCE)
            if came == kind and fits(data):
                return data


def user_subscriptions(account):
    yield "SubscribeAccounts", []
    for method in ("SubscribeOrders", "SubscribePositions", "SubscribeTrades"):
        yield method, [account]


def market_subscriptions():
    yield "SubscribeContractQuotes", [CONTRACT]


def trade(rest, account, events):
    say("quote", events.expect("quote")["lastPrice"])
    for number in range(ROUNDS):
        if number:
            time.sleep(float(os.environ["PAUSE"]))
        order = {"accountId": account, "contractId": CONTRACT, "type": 1, "side": 0, "size": 1, "limitPrice": 6400.25}
        placed = rest.ask("Order/place", order)["orderId"]
        say("placed", placed)
        events.expect("order", lambda data: data["id"] == placed and data["status"] == 1)
        say("order open", placed)
        rest.ask("Order/cancel", {"accountId": account, "orderId": placed})
        events.expect("order", lambda data: data["id"] == placed and data["status"] == 3)
        say("order canceled", placed)
    say("done")
