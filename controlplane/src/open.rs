//! Reaching the database: migrate, load the keys, create the owner and the first organisation. Waits for a database that is away, gives up on what waiting
//! cannot mend. Called once by `app`.

use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::{
    app::{Core, Error, Opening, Owner},
    bootstrap, keys, store,
};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Tries until it works, will never work, or the process stops. Whether it worked.
pub async fn until_open(core: &Core, opening: &watch::Sender<Opening>) -> bool {
    let stop = core.tasks.stop_token();
    let mut pause = FIRST_PAUSE;
    loop {
        let tried = tokio::select! {
            tried = once(core) => tried,
            () = stop.cancelled() => return false,
        };
        match tried {
            Ok(owner) => {
                info!("the database is reached and the keys are loaded");
                opening.send_replace(Opening::Open(owner));
                return true;
            }
            Err(error) if may_pass(&error) => {
                warn!(error = %chain(&error), "not open yet; trying again in {pause:?}");
                opening.send_replace(Opening::Waiting(Some(error.to_string())));
            }
            Err(error) => {
                error!(error = %chain(&error), "cannot start");
                opening.send_replace(Opening::Failed(error.to_string()));
                stop.cancel();
                return false;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            () = stop.cancelled() => return false,
        }
    }
}

async fn once(core: &Core) -> Result<Option<Owner>, Error> {
    if core.config.migrate {
        core.store.migrate().await?;
    } else {
        core.store.refuse_if_behind().await?;
    }
    core.custody.load().await?;
    bootstrap::first_start(core).await
}

/// Whether waiting may mend it.
fn may_pass(error: &Error) -> bool {
    let store = match error {
        Error::Store(error) | Error::Keys(keys::Error::Store(error)) => error,
        _ => return false,
    };
    matches!(store, store::Error::Away(_) | store::Error::Contended)
}

/// The message with its causes, for the log.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
