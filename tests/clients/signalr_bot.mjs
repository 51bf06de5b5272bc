// @microsoft/signalr: ProjectX's hubs, as the venue documents it (`documented`) or with negotiation (`negotiating`).
// What it reads from the environment: see hub_trade.py.

import { HttpTransportType, HubConnectionBuilder, LogLevel } from "@microsoft/signalr";

const env = process.env;
const isDocumented = process.argv.includes("documented");
const contract = "CON.F.US.EP.Z26";
const say = (step, got = null) => console.log(JSON.stringify({ step, got }));
const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

let token = null;

async function post(operation, body, bearer = token) {
  const headers = { "Content-Type": "application/json", Accept: "text/plain" };
  if (bearer) headers.Authorization = `Bearer ${bearer}`;
  return fetch(`${env.REST}/api/${operation}`, { method: "POST", headers, body: JSON.stringify(body) });
}

// One login for all who want one at that time: both hubs may.
let login = null;

function logIn() {
  login ??= post("Auth/loginKey", { userName: env.USER_NAME, apiKey: env.API_KEY }, null)
    .then((answer) => answer.json())
    .then((told) => (token = told.token))
    .finally(() => (login = null));
  return login;
}

async function ask(operation, body) {
  let answer = await post(operation, body);
  if (answer.status === 401) {
    say("renewed");
    await logIn();
    answer = await post(operation, body);
  }
  if (!answer.ok) throw new Error(`${operation}: ${answer.status}`);
  const told = await answer.json();
  if (!told.success) throw new Error(`${operation}: ${JSON.stringify(told)}`);
  return told;
}

// What the hubs told and nobody has waited for yet.
const kept = [];
let waiting = null;

function came(kind, data) {
  kept.push({ kind, data });
  look();
}

function look() {
  const at = waiting === null ? -1 : kept.findIndex(({ kind, data }) => kind === waiting.kind && waiting.fits(data));
  if (at < 0) return;
  const [{ data }] = kept.splice(at, 1);
  const { resolve } = waiting;
  waiting = null;
  resolve(data);
}

function expect(kind, fits = () => true) {
  return new Promise((resolve) => {
    waiting = { kind, fits, resolve };
    look();
  });
}

async function connect(name, listen, subscribe) {
  // As the documentation has it, the token stands in the address and in a header. Without it, the header alone.
  const documented = {
    skipNegotiation: true,
    transport: HttpTransportType.WebSockets,
    accessTokenFactory: () => token,
    timeout: 10000,
  };
  const fresh = async () => {
    // A connection that is made anew wants a token that is good.
    if ((await post("Account/search", { onlyActiveAccounts: true })).status === 401) await logIn();
    return token;
  };
  const address = isDocumented ? `${env.HUB}/${name}?access_token=${token}` : `${env.HUB}/${name}`;
  const options = isDocumented ? documented : { accessTokenFactory: fresh };
  const builder = new HubConnectionBuilder().withUrl(address, options).withAutomaticReconnect();
  const connection = builder.configureLogging(LogLevel.Error).build();
  listen(connection);
  connection.onreconnected(async () => {
    await subscribe(connection);
    say("reconnected", name);
    came("reconnected", name);
  });
  await connection.start();
  await subscribe(connection);
  return connection;
}

await logIn();
const account = (await ask("Account/search", { onlyActiveAccounts: true })).accounts[0].id;
const user = await connect(
  "user",
  (connection) => connection.on("GatewayUserOrder", (told) => came("order", told.data ?? told)),
  async (connection) => {
    await connection.invoke("SubscribeAccounts");
    for (const method of ["SubscribeOrders", "SubscribePositions", "SubscribeTrades"]) await connection.invoke(method, account);
  },
);
const market = await connect(
  "market",
  (connection) => connection.on("GatewayQuote", (id, data) => came("quote", { contract: id, ...data })),
  (connection) => connection.invoke("SubscribeContractQuotes", contract),
);

say("quote", (await expect("quote")).lastPrice);
for (let round = 0; round < 3; round++) {
  if (round > 0) {
    await pause(Number(env.PAUSE));
    // Where the hubs end together with the token, the bot trades on when it hears again.
    if (env.HUBS_END) await expect("reconnected", (name) => name === "user");
  }
  const order = { accountId: account, contractId: contract, type: 1, side: 0, size: 1, limitPrice: 6400.25 };
  const placed = (await ask("Order/place", order)).orderId;
  say("placed", placed);
  await expect("order", (data) => data.id === placed && data.status === 1);
  say("order open", placed);
  await ask("Order/cancel", { accountId: account, orderId: placed });
  await expect("order", (data) => data.id === placed && data.status === 3);
  say("order canceled", placed);
}
await user.stop();
await market.stop();
say("done");
process.exit(0);
