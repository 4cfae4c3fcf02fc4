//! Who makes a call, as the database knows it now: a token only says which session.
//!
//! Put into the request by the access layer; handlers ask it for the organisation they may act in.

use sqlx::PgConnection;
use tonic::Request;
use uuid::Uuid;

use super::{error::Error, said::Said};
use crate::{
    app::Core,
    domain::{Organization, Role},
    status::Viewer,
    store::{self, change::Actor},
};

/// A signed-in user in a session.
#[derive(Debug, Clone)]
pub struct Caller {
    pub user: Uuid,
    pub email: String,
    pub session: Uuid,
    pub platform_admin: bool,
    /// The organisation that the session is for.
    pub org: Option<Place>,
    /// Where the call came from.
    pub address: String,
    /// What the call says beside its request.
    pub said: Said,
}

/// A caller's place in an organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub id: Uuid,
    pub slug: String,
    /// None: a platform administrator who is no member.
    pub role: Option<Role>,
}

/// Whether a row is only read, or held until the end of the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Nothing is held.
    Read,
    /// Changes of one organisation wait for each other: what was checked stays true until the commit.
    Change,
}

impl Caller {
    /// Of a request that has passed the access layer.
    pub fn of<T>(request: &Request<T>) -> Result<Self, Error> {
        request.extensions().get::<Self>().cloned().ok_or(Error::Unauthenticated("expected an access token"))
    }

    /// For the records.
    pub fn actor(&self) -> Actor {
        Actor { id: self.user.to_string(), name: self.email.clone(), address: self.address.clone() }
    }

    /// The caller's role in the organisation that it may act in: none for platform administrators who are no members.
    pub fn role(&self) -> Option<Role> {
        self.org.as_ref().and_then(|org| org.role)
    }

    /// Whether the caller may look into this organisation at all. Says the same of one that does not exist.
    pub fn reaches(&self, slug: &str) -> Result<(), Error> {
        let own = self.org.as_ref().is_some_and(|org| org.slug == slug);
        if self.platform_admin || own { Ok(()) } else { Err(Error::NotFound(format!("organizations/{slug}"))) }
    }

    /// What the caller sees of the fleet: members the pool of their organisation, platform administrators all.
    pub async fn viewer(&self, core: &Core) -> Result<Viewer, Error> {
        if self.platform_admin {
            return Ok(Viewer::Platform);
        }
        let own = self.org.as_ref().ok_or_else(|| Error::Denied("only members of an organisation see its pool".into()))?;
        let mut connection = core.store.connection().await?;
        let org = self.organization(&mut connection, &own.slug, Hold::Read).await?;
        Ok(Viewer::Member { org: org.id, pool: org.pool })
    }

    /// The only way for a handler to an organisation: its own, or any for platform administrators.
    pub async fn organization(&self, connection: &mut PgConnection, slug: &str, hold: Hold) -> Result<Organization, Error> {
        self.reaches(slug)?;
        let found = match hold {
            Hold::Read => store::organizations::by_slug(connection, slug).await?,
            Hold::Change => store::organizations::hold(connection, slug).await?,
        };
        // A session of an organisation that was deleted and made anew under the same name is not of the new one.
        let same = |org: &Organization| self.platform_admin || self.org.as_ref().is_some_and(|own| own.id == org.id);
        found.filter(same).ok_or_else(|| Error::NotFound(format!("organizations/{slug}")))
    }
}
