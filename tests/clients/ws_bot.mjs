// A bot on Node's `ws`. What it reads from the environment: see trade.py.

import { readFileSync } from "node:fs";
import WebSocket from "ws";

const env = process.env;
const isNative = "DIAL" in env;
const options = { ca: readFileSync(env.CA) };
if (env.CERT) Object.assign(options, { cert: readFileSync(env.CERT), key: readFileSync(env.KEY) });
if (isNative) {
  // As an entry in the hosts file would have it.
  const address = env.DIAL.split(":")[0];
  options.lookup = (_host, wish, done) => (wish.all ? done(null, [{ address, family: 4 }]) : done(null, address, 4));
}

const socket = new WebSocket(env.URL, options);
const kept = [];
let waiting = null;

const say = (line) => console.log(JSON.stringify(line));
const send = (message) => socket.send(JSON.stringify(message));

// The first message that fits. What came before stays for later, for order is not promised.
function expect(step, fits) {
  return new Promise((resolve) => {
    waiting = { step, fits, resolve };
    look();
  });
}

function look() {
  const at = waiting === null ? -1 : kept.findIndex(waiting.fits);
  if (at < 0) return;
  const [message] = kept.splice(at, 1);
  const { step, resolve } = waiting;
  waiting = null;
  say({ step, got: message });
  resolve(message);
}

// Over a path of the proxy's own. A client certificate takes no message.
async function logIn() {
  if (env.TOKEN) send({ type: "auth", token: env.TOKEN });
  await expect("connected", (it) => it.type === "connected");
}

async function kraken() {
  // Under the exchange's own name the bot is the one that it always was, and sends a token that means nothing.
  const token = isNative ? { token: "no-token-here" } : {};
  if (!isNative) await logIn();
  const ask = (req_id, method, params) => {
    send({ method, params: { ...params, ...token }, req_id });
    return expect(`${method} ${req_id}`, (it) => it.req_id === req_id);
  };
  const execution = (order, kind) => (it) =>
    it.channel === "executions" && it.data.some((told) => told.order_id === order && told.exec_type === kind);

  await ask(1, "subscribe", { channel: "executions" });
  await ask(2, "subscribe", { channel: "balances" });
  await expect("balances", (it) => it.channel === "balances");
  const order = { order_type: "limit", side: "buy", symbol: "BTC/USD", order_qty: 0.5, limit_price: 100.1 };
  const placed = await ask(3, "add_order", order);
  const id = placed.result.order_id;
  await expect("new", execution(id, "new"));
  await ask(4, "cancel_order", { order_id: [id] });
  await expect("canceled", execution(id, "canceled"));
}

async function bitfinex() {
  if (isNative) send({ event: "auth", apiKey: "no-key-here", authSig: "00", authNonce: 1, authPayload: "AUTH1" });
  else await logIn();
  const told = (kind) => (it) => Array.isArray(it) && it[0] === 0 && it[1] === kind;

  await expect("auth", (it) => it.event === "auth");
  await expect("wallets", told("ws"));
  await expect("orders", told("os"));
  const order = { cid: 12345, type: "EXCHANGE LIMIT", symbol: "tBTCUSD", price: "100", amount: "0.5" };
  send([0, "on", null, order]);
  await expect("on-req", (it) => told("n")(it) && it[2][1] === "on-req");
  const placed = await expect("new", told("on"));
  send([0, "oc", null, { id: placed[2][0] }]);
  await expect("oc-req", (it) => told("n")(it) && it[2][1] === "oc-req");
  await expect("canceled", told("oc"));
}

socket.on("message", (data) => {
  kept.push(JSON.parse(data));
  look();
});
socket.on("open", async () => {
  await { kraken, bitfinex }[process.argv[2]]();
  say({ step: "done" });
  process.exit(0);
});
socket.on("error", (error) => {
  console.error(error);
  process.exit(2);
});
socket.on("close", (code, reason) => {
  say({ step: "closed", code, reason: reason.toString() });
  process.exit(1);
});
