// bitfinex-api-node: Bitfinex's WebSocket. Its login sends the secret itself along with the signature.

import bfx from "bitfinex-api-node";

const env = process.env;
const say = (step, got = null) => console.log(JSON.stringify({ step, got }));
const where = env.WS_AUTH ? { url: `${env.WS_AUTH}/ws/2` } : {};
const socket = new bfx.WSv2({ apiKey: env.API_KEY, apiSecret: env.API_SECRET, transform: true, ...where });

socket.on("error", (error) => {
  console.error(error);
  process.exit(2);
});
const wallets = new Promise((resolve) => socket.onWalletSnapshot({}, resolve));
const ticker = new Promise((resolve) => socket.onTicker({ symbol: "tBTCUSD" }, resolve));
await socket.open();
await socket.auth();
say("auth", socket.isAuthenticated());
say("wallets", (await wallets).length > 0);
await socket.subscribeTicker("tBTCUSD");
say("ticker", (await ticker).lastPrice);
const order = { cid: Date.now(), type: "EXCHANGE LIMIT", symbol: "tBTCUSD", price: "100.1", amount: "0.5" };
const canceled = new Promise((resolve) => socket.onOrderClose({ symbol: "tBTCUSD" }, resolve));
const placed = await socket.submitOrder(order);
say("placed", placed[0] ?? placed.id);
await socket.cancelOrder(placed[0] ?? placed.id);
say("canceled", (await canceled).status);
await socket.close();
say("done");
process.exit(0);
