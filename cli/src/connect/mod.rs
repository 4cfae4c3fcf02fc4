//! `mcpgw connect`: the client's stdin and stdout on one side, a WebSocket to the gateway on the other.
//!
//! Owns connecting, and connecting again. What has to be said anew is in [`conversation`], who is let in is in [`dial`]. Nothing but messages
//! ever goes to the output.

mod carry;
mod conversation;
mod dial;
mod lines;
#[cfg(test)]
mod tests;

use std::time::Duration;

use rand::RngExt as _;
use tokio::io::AsyncWrite;

use carry::{Carrier, End};
use conversation::Conversation;
pub use dial::{Credential, Dialer};
use dial::{Refusal, Socket};
pub use lines::Lines;

use crate::failure::Failure;

/// The largest message either way, in bytes.
const LARGEST: usize = 64 << 20;

/// How a lost connection is made again.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Waits are random, up to this for the first, doubling.
    pub first: Duration,
    /// The longest.
    pub most: Duration,
    /// How often in a row without a message of the server.
    pub attempts: u32,
    /// How often a silent connection is asked for a sign of life; it is lost if none came by the next time.
    pub ping: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { first: Duration::from_millis(250), most: Duration::from_secs(15), attempts: 10, ping: Duration::from_secs(25) }
    }
}

/// Carries messages until the input ends.
pub async fn run(
    dialer: &Dialer<'_>,
    patience: Patience,
    mut lines: Lines,
    mut output: impl AsyncWrite + Unpin,
) -> anyhow::Result<()> {
    let mut conversation = Conversation::default();
    let mut socket = match dialer.dial().await {
        Ok(socket) => socket,
        Err(Refusal::Final(error)) => return Err(error),
        Err(Refusal::ForNow(why)) => return Err(Failure::Unreachable(why).into()),
    };
    let mut attempt = 0;
    loop {
        let mut carrier = Carrier { conversation: &mut conversation, lines: &mut lines, output: &mut output, heard: false };
        let why = match carrier.carry(socket, patience.ping).await? {
            End::Input => return Ok(()),
            End::Lost(why) => why,
        };
        if carrier.heard {
            attempt = 0;
        }
        eprintln!("the connection was lost: {why}");
        carrier.refuse_open().await?;
        socket = match again(dialer, patience, &lines, &mut attempt, why).await? {
            Some(socket) => socket,
            None => return Ok(()),
        };
        eprintln!("connected again");
    }
}

/// The next connection; none: the input has ended meanwhile.
async fn again(
    dialer: &Dialer<'_>,
    patience: Patience,
    lines: &Lines,
    attempt: &mut u32,
    mut why: String,
) -> anyhow::Result<Option<Socket>> {
    loop {
        if *attempt >= patience.attempts {
            return Err(Failure::Unreachable(format!("gave up after {attempt} attempts: {why}")).into());
        }
        let most = patience.first.saturating_mul(2_u32.saturating_pow(*attempt)).min(patience.most);
        let wait = most.mul_f64(rand::rng().random_range(0.0..=1.0));
        *attempt += 1;
        let next = async {
            tokio::time::sleep(wait).await;
            dialer.dial().await
        };
        let dialled = tokio::select! {
            biased;
            () = lines.ended.cancelled() => return Ok(None),
            dialled = next => dialled,
        };
        match dialled {
            Ok(socket) => return Ok(Some(socket)),
            Err(Refusal::Final(error)) => return Err(error),
            Err(Refusal::ForNow(now)) => why = now,
        }
    }
}
