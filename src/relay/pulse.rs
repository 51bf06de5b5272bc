//! Whether the peers of a session are alive: pings, answers, and how long an outbox has been full.
//!
//! Pure: the moment is passed in. A client that has answered one ping must answer them all, for a frozen bot must
//! not be kept alive; one that never answered is judged by TCP and by its outbox.

use super::Limits;
use crate::session::End;
use std::time::{Duration, Instant};

/// Pings of the client's own that may come at once, before the rate counts.
const PING_BURST: f64 = 100.0;
/// The bytes before the payload of a client's control frame (RFC 6455, 5.2: two, and four of the mask).
const CONTROL_HEADER: usize = 6;

pub(super) struct ClientPulse {
    ping_interval: Duration,
    pong_timeout: Duration,
    stall: Duration,
    message_idle: Duration,
    ping_rate: f64,
    next_ping: Instant,
    unanswered_since: Option<Instant>,
    has_answered: bool,
    full_since: Option<Instant>,
    ping_allowance: f64,
    counted_at: Instant,
    /// Since when a message may have been on its way.
    message_since: Instant,
    /// How many of the bytes that came belong to messages and control frames that are whole.
    bytes_of_whole: u64,
}

impl ClientPulse {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            ping_interval: limits.ping_interval,
            pong_timeout: limits.pong_timeout,
            stall: limits.outbox_stall,
            message_idle: limits.message_idle,
            ping_rate: f64::from(limits.pings_per_second_max),
            next_ping: now + limits.ping_interval,
            unanswered_since: None,
            has_answered: false,
            full_since: None,
            ping_allowance: PING_BURST,
            counted_at: now,
            message_since: now,
            bytes_of_whole: 0,
        }
    }

    /// A whole message came.
    pub(super) fn on_message(&mut self, bytes_read: u64, now: Instant) {
        self.message_since = now;
        self.bytes_of_whole = bytes_read;
    }

    pub(super) fn on_pong(&mut self, payload_bytes: usize) {
        self.on_control(payload_bytes);
        self.has_answered = true;
        self.unanswered_since = None;
    }

    /// Counts a ping of the client's own. False: that was one too many.
    pub(super) fn on_ping(&mut self, payload_bytes: usize, now: Instant) -> bool {
        self.on_control(payload_bytes);
        let refill = now.duration_since(self.counted_at).as_secs_f64() * self.ping_rate;
        self.counted_at = now;
        self.ping_allowance = (self.ping_allowance + refill).min(PING_BURST) - 1.0;
        self.ping_allowance >= 0.0
    }

    /// A control frame may stand inside a message: it is no message itself, and completes none.
    fn on_control(&mut self, payload_bytes: usize) {
        self.bytes_of_whole += (CONTROL_HEADER + payload_bytes) as u64;
    }

    /// There is room in its outbox.
    pub(super) fn on_room(&mut self) {
        self.full_since = None;
    }

    /// The first moment at which [`ClientPulse::on_time`] can say something. Starts the clock of a full outbox.
    pub(super) fn next(&mut self, now: Instant, is_full: bool) -> Instant {
        let mut at = self.next_ping.min((self.message_since + self.message_idle).max(now + Duration::from_millis(1)));
        if let Some(since) = self.unanswered_since.filter(|_| self.has_answered && !is_full) {
            at = at.min(since + self.pong_timeout);
        }
        self.full_since = if is_full { self.full_since.or(Some(now)) } else { None };
        if let Some(since) = self.full_since {
            at = at.min(since + self.stall);
        }
        at
    }

    /// True: a ping is due. An error: the session is over.
    pub(super) fn on_time(&mut self, now: Instant, is_full: bool, bytes_read: u64) -> Result<bool, End> {
        if is_full && self.full_since.is_some_and(|since| now >= since + self.stall) {
            return Err(End::SlowConsumer);
        }
        let is_silent = self.unanswered_since.is_some_and(|since| now >= since + self.pong_timeout);
        if self.has_answered && is_silent && !is_full {
            return Err(End::ClientSilent);
        }
        if bytes_read <= self.bytes_of_whole {
            // Silence is no flood: the time counts from when a message has begun.
            self.message_since = now;
        } else if now >= self.message_since + self.message_idle {
            return Err(End::ClientIdle);
        }
        if now < self.next_ping {
            return Ok(false);
        }
        self.next_ping = now + self.ping_interval;
        self.unanswered_since = self.unanswered_since.or(Some(now));
        // Behind a full outbox a ping would only wait.
        Ok(!is_full)
    }
}

pub(super) struct UpstreamPulse {
    ping_interval: Duration,
    pong_timeout: Duration,
    stall: Duration,
    next_ping: Instant,
    alive_at: Instant,
    full_since: Option<Instant>,
}

impl UpstreamPulse {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            ping_interval: limits.ping_interval,
            pong_timeout: limits.pong_timeout,
            stall: limits.outbox_stall,
            next_ping: now + limits.ping_interval,
            alive_at: now,
            full_since: None,
        }
    }

    /// Anything came.
    pub(super) fn on_sign_of_life(&mut self, now: Instant) {
        self.alive_at = now;
    }

    /// There is room in its outbox.
    pub(super) fn on_room(&mut self) {
        self.full_since = None;
    }

    /// The first moment at which [`UpstreamPulse::on_time`] can say something.
    pub(super) fn next(&mut self, now: Instant, is_full: bool) -> Instant {
        let mut at = self.next_ping.min((self.alive_at + self.pong_timeout).max(now + Duration::from_millis(1)));
        self.full_since = if is_full { self.full_since.or(Some(now)) } else { None };
        if let Some(since) = self.full_since {
            at = at.min(since + self.stall);
        }
        at
    }

    /// True: a ping is due. An error: the session is over. `is_read`: we took what it sent.
    pub(super) fn on_time(&mut self, now: Instant, is_full: bool, is_read: bool) -> Result<bool, End> {
        if is_full && self.full_since.is_some_and(|since| now >= since + self.stall) {
            return Err(End::UpstreamStalled);
        }
        if !is_read {
            self.alive_at = now;
        }
        if now >= self.alive_at + self.pong_timeout {
            return Err(End::UpstreamLost);
        }
        if now < self.next_ping {
            return Ok(false);
        }
        self.next_ping = now + self.ping_interval;
        Ok(!is_full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> (ClientPulse, Instant) {
        let start = Instant::now();
        (ClientPulse::new(&Limits::default(), start), start)
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_client_that_never_answered_a_ping_is_not_dropped_for_it() {
        let (mut pulse, start) = client();
        for count in 1..20 {
            assert_eq!(pulse.on_time(start + seconds(10 * count), false, 0), Ok(true));
        }
    }

    #[test]
    fn a_client_that_answered_once_must_answer_always() {
        let (mut pulse, start) = client();
        assert_eq!(pulse.on_time(start + seconds(10), false, 0), Ok(true));
        pulse.on_pong(0);
        assert_eq!(pulse.on_time(start + seconds(20), false, 6), Ok(true));
        assert_eq!(pulse.on_time(start + seconds(39), false, 6), Ok(true));
        assert_eq!(pulse.on_time(start + seconds(40), false, 6), Err(End::ClientSilent));
    }

    #[test]
    fn an_outbox_that_stays_full_is_a_slow_consumer_and_one_that_drains_is_not() {
        let (mut pulse, start) = client();
        pulse.next(start, true);
        assert_eq!(pulse.on_time(start + seconds(4), true, 0), Ok(false));
        pulse.next(start + seconds(4), false);
        pulse.next(start + seconds(5), true);
        assert_eq!(pulse.on_time(start + seconds(9), true, 0), Ok(false));
        assert_eq!(pulse.on_time(start + seconds(10), true, 0), Err(End::SlowConsumer));
    }

    #[test]
    fn an_outbox_that_is_full_at_every_look_and_drains_between_is_not_stalled() {
        let (mut pulse, start) = client();
        for second in 0..20 {
            pulse.next(start + seconds(second), true);
            assert!(pulse.on_time(start + seconds(second), true, 0).is_ok(), "{second}");
            pulse.on_room();
        }
    }

    #[test]
    fn an_answer_that_is_due_behind_a_full_outbox_is_not_waited_for_in_the_past() {
        let (mut pulse, start) = client();
        assert_eq!(pulse.on_time(start + seconds(10), false, 0), Ok(true));
        pulse.on_pong(0);
        assert_eq!(pulse.on_time(start + seconds(20), false, 6), Ok(true));
        let later = start + seconds(41);
        assert_eq!(pulse.on_time(later, true, 6), Ok(false));
        assert!(pulse.next(later, true) > later, "the alarm would ring for ever");
    }

    #[test]
    fn bytes_that_never_make_a_message_end_the_session() {
        let (mut pulse, start) = client();
        pulse.on_message(100, start);
        assert_eq!(pulse.on_time(start + seconds(59), false, 5_000), Ok(true));
        assert_eq!(pulse.on_time(start + seconds(60), false, 5_000), Err(End::ClientIdle));
    }

    #[test]
    fn a_message_that_begins_after_a_long_silence_has_its_whole_time() {
        let (mut pulse, start) = client();
        pulse.on_message(100, start);
        assert_eq!(pulse.on_time(start + seconds(600), false, 100), Ok(true));
        assert_eq!(pulse.on_time(start + seconds(659), false, 101), Ok(true));
        assert_eq!(pulse.on_time(start + seconds(660), false, 101), Err(End::ClientIdle));
    }

    #[test]
    fn control_frames_between_its_fragments_do_not_prolong_a_message() {
        let (mut pulse, start) = client();
        for count in 1..6 {
            pulse.on_pong(4);
            assert_eq!(pulse.on_time(start + seconds(10 * count), false, 10 * count), Ok(true), "pongs alone");
        }
        for count in 6..11 {
            pulse.on_pong(4);
            assert_eq!(pulse.on_time(start + seconds(10 * count), false, 10 * count + 1), Ok(true));
        }
        assert_eq!(pulse.on_time(start + seconds(110), false, 101), Err(End::ClientIdle));
    }

    #[test]
    fn twenty_pings_a_second_are_borne_and_more_are_a_flood() {
        let (mut pulse, start) = client();
        for count in 0..2_000 {
            assert!(pulse.on_ping(0, start + Duration::from_millis(50 * count)));
        }
        let (mut pulse, start) = client();
        let borne = (0..1_000).take_while(|count| pulse.on_ping(0, start + Duration::from_micros(20 * count))).count();
        assert!((100..110).contains(&borne), "{borne}");
    }

    #[test]
    fn an_exchange_that_is_silent_for_twenty_seconds_is_lost() {
        let start = Instant::now();
        let mut pulse = UpstreamPulse::new(&Limits::default(), start);
        assert_eq!(pulse.on_time(start + seconds(10), false, true), Ok(true));
        pulse.on_sign_of_life(start + seconds(11));
        assert_eq!(pulse.on_time(start + seconds(30), false, true), Ok(true));
        assert_eq!(pulse.on_time(start + seconds(31), false, true), Err(End::UpstreamLost));
    }

    #[test]
    fn an_exchange_that_we_do_not_read_is_not_called_silent() {
        let start = Instant::now();
        let mut pulse = UpstreamPulse::new(&Limits::default(), start);
        assert_eq!(pulse.on_time(start + seconds(100), false, false), Ok(true));
    }
}
