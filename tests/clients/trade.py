"""What every bot here does, whichever WebSocket library it uses: log in, look, place an order, cancel it.

Where to connect, whom to trust and how to log in come from the environment, as a bot author would have it:
  URL       wss://localhost:8443/kraken/v2, or the exchange's own
  CA        the authority that the connection must be signed by
  TOKEN     a client token, for the first message; or
  CERT KEY  a client certificate
  DIAL      host:port to dial instead of the URL's, as an entry in the hosts file would have it (not needed with one)
"""

import asyncio
import json
import os
import ssl
import sys

PATIENCE = 20  # seconds for the whole run


def trust():
    context = ssl.create_default_context(cafile=os.environ["CA"])
    if "CERT" in os.environ:
        context.load_cert_chain(os.environ["CERT"], os.environ["KEY"])
    return context


def url():
    return os.environ["URL"]


def dial():
    host, _, port = os.environ.get("DIAL", "").rpartition(":")
    return (host, int(port)) if port else None


class Closed(Exception):
    def __init__(self, code, reason):
        self.code, self.reason = code, reason


class Bot:
    """`send` takes a text, `receive` gives one or raises `Closed`: all that the flows want of a library."""

    def __init__(self, send, receive):
        self.send_text, self.receive_text = send, receive
        self.kept = []

    async def send(self, message):
        await self.send_text(json.dumps(message))

    async def expect(self, step, fits):
        """The first message that fits. What came before stays for later, for order is not promised."""
        message = next((kept for kept in self.kept if fits(kept)), None)
        if message is not None:
            self.kept.remove(message)
        while message is None:
            came = json.loads(await self.receive_text())
            if fits(came):
                message = came
            else:
                self.kept.append(came)
        say({"step": step, "got": message})
        return message


def say(line):
    print(json.dumps(line), flush=True)


async def log_in(bot):
    """Over a path of the proxy's own. A client certificate takes no message."""
    if "TOKEN" in os.environ:
        await bot.send({"type": "auth", "token": os.environ["TOKEN"]})
    await bot.expect("connected", lambda it: it.get("type") == "connected")


async def kraken(bot, is_native):
    # Under the exchange's own name the bot is the one that it always was, and sends a token that means nothing.
    token = {"token": "no-token-here"} if is_native else {}
    if not is_native:
        await log_in(bot)

    async def ask(req_id, method, params):
        await bot.send({"method": method, "params": params | token, "req_id": req_id})
        return await bot.expect(f"{method} {req_id}", lambda it: it.get("req_id") == req_id)

    def execution(order, kind):
        return lambda it: it.get("channel") == "executions" and any(
            told["order_id"] == order and told["exec_type"] == kind for told in it["data"]
        )

    await ask(1, "subscribe", {"channel": "executions"})
    await ask(2, "subscribe", {"channel": "balances"})
    await bot.expect("balances", lambda it: it.get("channel") == "balances")
    order = {"order_type": "limit", "side": "buy", "symbol": "BTC/USD", "order_qty": 0.5, "limit_price": 100.1}
    placed = await ask(3, "add_order", order)
    order_id = placed["result"]["order_id"]
    await bot.expect("new", execution(order_id, "new"))
    await ask(4, "cancel_order", {"order_id": [order_id]})
    await bot.expect("canceled", execution(order_id, "canceled"))


async def bitfinex(bot, is_native):
    if is_native:
        await bot.send({"event": "auth", "apiKey": "no-key-here", "authSig": "00", "authNonce": 1, "authPayload": "AUTH1"})
    else:
        await log_in(bot)

    def private(kind):
        return lambda it: isinstance(it, list) and it[0] == 0 and it[1] == kind

    await bot.expect("auth", lambda it: isinstance(it, dict) and it.get("event") == "auth")
    await bot.expect("wallets", private("ws"))
    await bot.expect("orders", private("os"))
    order = {"cid": 12345, "type": "EXCHANGE LIMIT", "symbol": "tBTCUSD", "price": "100", "amount": "0.5"}
    await bot.send([0, "on", None, order])
    await bot.expect("on-req", lambda it: private("n")(it) and it[2][1] == "on-req")
    placed = await bot.expect("new", private("on"))
    await bot.send([0, "oc", None, {"id": placed[2][0]}])
    await bot.expect("oc-req", lambda it: private("n")(it) and it[2][1] == "oc-req")
    await bot.expect("canceled", private("oc"))


def main(connected):
    """`connected(flow)` connects with its library and awaits `flow(bot)`."""
    venue = {"kraken": kraken, "bitfinex": bitfinex}[sys.argv[1]]

    async def flow(bot):
        await venue(bot, is_native="DIAL" in os.environ)
        say({"step": "done"})

    try:
        asyncio.run(asyncio.wait_for(connected(flow), PATIENCE))
    except Closed as closed:
        say({"step": "closed", "code": closed.code, "reason": closed.reason})
        sys.exit(1)
