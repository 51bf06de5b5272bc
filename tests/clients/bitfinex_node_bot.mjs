// bfx-api-node-rest: Bitfinex over REST. It finds its authority by NODE_EXTRA_CA_CERTS.

import models from "bfx-api-node-models";
import bfx from "bfx-api-node-rest";

const env = process.env;
const say = (step, got = null) => console.log(JSON.stringify({ step, got }));
const rest = new bfx.RESTv2({ apiKey: env.API_KEY, apiSecret: env.API_SECRET, ...(env.REST && { url: env.REST }) });
const opened = async () => (await rest.activeOrders()).map((order) => order[0]);

say("status", await rest.status());
say("ticker", (await rest.ticker({ symbol: "tBTCUSD" }))[6]);
say("wallets", (await rest.wallets()).length > 0);
say("open", await opened());
const order = new models.Order({ type: "EXCHANGE LIMIT", symbol: "tBTCUSD", amount: 0.5, price: 100.1 });
const [placed] = await rest.submitOrder({ order });
say("placed", placed);
say("open", await opened());
await rest.cancelOrder({ id: placed });
say("open", await opened());
say("done");
