//! Reads answers of servers whole, or as far as somebody has to look; always within a size and a time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::outcome;
use crate::pipeline::denial::RelayDenial;
use crate::upstream::Received;

/// A body, read as far as it is worth holding.
pub enum Gathered {
    Whole(Bytes),
    Part(Bytes, Received),
}

/// Reads a body until it ends or is too large to be looked at. A JSON answer is worth nothing before its end, so that
/// holding it back delays nobody.
pub async fn gather(mut body: Received, idle: Duration) -> Result<Gathered, RelayDenial> {
    if body.size_hint().lower() > outcome::LOOK_AT as u64 {
        return Ok(Gathered::Part(Bytes::new(), body));
    }
    let mut held = BytesMut::new();
    while held.len() <= outcome::LOOK_AT {
        let frame = tokio::time::timeout(idle, body.frame()).await.map_err(|_elapsed| RelayDenial::Broken)?;
        let Some(frame) = frame else { return Ok(Gathered::Whole(held.freeze())) };
        // Trailers are not passed on.
        let Ok(bytes) = frame.map_err(|_broken| RelayDenial::Broken)?.into_data() else { continue };
        if held.is_empty() && body.is_end_stream() {
            return Ok(Gathered::Whole(bytes));
        }
        held.extend_from_slice(&bytes);
    }
    Ok(Gathered::Part(held.freeze(), body))
}

/// Reads a body whole, at most `limit` bytes and `deadline` long.
pub async fn collect(body: Received, limit: u64, deadline: Duration) -> Result<Bytes, RelayDenial> {
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    match tokio::time::timeout(deadline, Limited::new(body, most).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(RelayDenial::TooLarge { limit }),
        Ok(Err(_)) | Err(_) => Err(RelayDenial::Broken),
    }
}
