//! What the bots on sockets do, and what the exchange has received meanwhile.

use super::super::Exit;
use super::bot::Bot;
use super::screen::{Screen, Who};
use crate::simulator::Record;
use serde_json::Value;

/// One bot's part.
pub(super) struct Act<'a> {
    screen: &'a Screen,
    bot: Bot,
    record: &'a Record,
    shown: u64,
}

impl<'a> Act<'a> {
    pub(super) fn new(screen: &'a Screen, bot: Bot, record: &'a Record) -> Self {
        let shown = record.snapshot().last().map_or(0, |entry| entry.number + 1);
        Self { screen, bot, record, shown }
    }

    pub(super) async fn log_in(&mut self) -> Result<(), Exit> {
        if let Some(login) = self.bot.login() {
            self.say(&login, |told| told["type"] == "connected").await?;
        }
        Ok(())
    }

    /// Says something, and shows it, what the exchange got of it, and the answer that fits.
    pub(super) async fn say(&mut self, text: &str, fits: impl Fn(&Value) -> bool) -> Result<Value, Exit> {
        self.screen.line(Who::Bot, text);
        self.bot.say(text).await?;
        self.hear(fits).await
    }

    /// Waits for a message that fits, and shows what the exchange has received until then.
    pub(super) async fn hear(&mut self, fits: impl Fn(&Value) -> bool) -> Result<Value, Exit> {
        let (text, value) = self.bot.hear(fits).await?;
        let from = self.shown;
        for entry in self.record.snapshot().iter().filter(|entry| entry.number >= from) {
            self.shown = entry.number + 1;
            self.screen.received(entry);
        }
        self.screen.line(Who::Told, &text);
        Ok(value)
    }

    pub(super) async fn leave(self) {
        self.bot.leave().await;
    }
}

/// Subscribes to private events, places an order and cancels it.
pub(super) async fn at_kraken(mut act: Act<'_>) -> Result<(), Exit> {
    act.log_in().await?;
    act.say(r#"{"method":"subscribe","params":{"channel":"executions"},"req_id":1}"#, |told| told["req_id"] == 1)
        .await?;
    let order = r#"{"method":"add_order","params":{"order_type":"limit","side":"buy","symbol":"BTC/USD","order_qty":0.5,"limit_price":26500.10},"req_id":2}"#;
    let placed = act.say(order, |told| told["req_id"] == 2).await?;
    let id = placed["result"]["order_id"].as_str().unwrap_or_default().to_owned();
    act.hear(|told| told["channel"] == "executions" && told["data"][0]["order_id"] == id.as_str()).await?;
    let cancel = format!(r#"{{"method":"cancel_order","params":{{"order_id":["{id}"]}},"req_id":3}}"#);
    act.say(&cancel, |told| told["req_id"] == 3).await?;
    act.leave().await;
    Ok(())
}

/// Asks for its balances: the proof came with the connection, so nothing comes before it.
pub(super) async fn balances_at_kraken(mut act: Act<'_>) -> Result<(), Exit> {
    let subscribe = r#"{"method":"subscribe","params":{"channel":"balances"},"req_id":1}"#;
    let told = act.say(subscribe, |told| told["req_id"] == 1).await?;
    act.leave().await;
    if told["success"] == true { Ok(()) } else { Err(Exit::failed("a certificate did not open the private channel")) }
}

pub(super) async fn at_bitfinex(mut act: Act<'_>) -> Result<(), Exit> {
    act.log_in().await?;
    act.hear(|told| told["event"] == "auth").await?;
    let order =
        r#"[0,"on",null,{"cid":12345,"type":"EXCHANGE LIMIT","symbol":"tBTCUSD","price":"26500.10","amount":"0.5"}]"#;
    let placed = act.say(order, |told| told[1] == "on").await?;
    let cancel = format!(r#"[0,"oc",null,{{"id":{}}}]"#, placed[2][0]);
    act.say(&cancel, |told| told[1] == "oc").await?;
    act.leave().await;
    Ok(())
}

/// May read, and tries to order.
pub(super) async fn refused_at_bitfinex(mut act: Act<'_>) -> Result<(), Exit> {
    act.hear(|told| told["type"] == "connected").await?;
    let order = r#"[0,"on",null,{"cid":777,"type":"EXCHANGE MARKET","symbol":"tBTCUSD","amount":"-100"}]"#;
    let told = act.say(order, |told| told[2][1] == "on-req").await?;
    act.leave().await;
    if told[2][6] == "ERROR" { Ok(()) } else { Err(Exit::failed("an order that is not granted was not refused")) }
}
