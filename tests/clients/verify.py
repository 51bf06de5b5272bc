"""Recomputes signatures from the exchanges' documentation, with Python's standard library alone.

Reads one JSON object from standard input:
  {"kraken": {"secret", "path", "body", "signature"}, "bitfinex": {"secret", "frame"}}
Either may be left out. Prints what is wrong, a line each, and ends with 1 if there is anything.
"""

import base64
import hashlib
import hmac
import json
import sys
from urllib.parse import parse_qs


def kraken(secret, path, body, signature):
    """docs.kraken.com, "Spot REST authentication": HMAC-SHA512 of (URI path + SHA256(nonce + POST data))."""
    [nonce] = parse_qs(body, strict_parsing=True)["nonce"]
    message = path.encode() + hashlib.sha256((nonce + body).encode()).digest()
    wanted = hmac.new(base64.b64decode(secret, validate=True), message, hashlib.sha512).digest()
    if base64.b64encode(wanted).decode() != signature:
        yield "kraken: API-Sign is not the signature of this request"


def bitfinex(secret, frame):
    """docs.bitfinex.com, "Authenticated channels": hex HMAC-SHA384 of AUTH + nonce."""
    auth = json.loads(frame)
    if auth["authPayload"] != f"AUTH{auth['authNonce']}":
        yield "bitfinex: authPayload is not AUTH and the nonce"
    wanted = hmac.new(secret.encode(), auth["authPayload"].encode(), hashlib.sha384).hexdigest()
    if wanted != auth["authSig"]:
        yield "bitfinex: authSig is not the signature of authPayload"


asked = json.load(sys.stdin)
checks = {"kraken": kraken, "bitfinex": bitfinex}
wrong = [line for venue, facts in asked.items() for line in checks[venue](**facts)]
for line in wrong:
    print(line)
sys.exit(1 if wrong else 0)
