//! What a first start creates: the owner, the organisation that the owner owns, and the organisation of the bootstrap document.
//!
//! Does nothing where there is any user already, and nothing about an organisation that is there or ever was. Called by `open`.

use mcp_gateway::proto::config::v1::{AuditFullAction, AuditSync};
use secrecy::ExposeSecret;
use uuid::Uuid;

use crate::{
    api::{
        memberships, organizations,
        passwords::{self, Passwords},
        users,
    },
    app::{Core, Error, Owner},
    domain::{Capture, Membership, Meta, Organization, Role, User},
    keys::DEFAULT_POOL,
    store::{self, change::Change},
};

mod document;

/// Replicas that start together create one owner.
const LOCK: &str = "first start";

/// Creates the owner if nobody is there yet, and what the document of `bootstrap_file` says if its organisation never was: one change.
pub async fn first_start(core: &Core) -> Result<Option<Owner>, Error> {
    let mut change = core.store.begin_system(LOCK).await?;
    store::hold(change.connection(), LOCK).await?;
    let document = match &core.config.bootstrap_file {
        Some(path) => document::wanted(&mut change, path).await?,
        None => None,
    };
    let owner = owner(core, &mut change).await?;
    if let Some(document) = document {
        document::apply(core, &mut change, &document).await?;
    }
    if !change.is_empty() {
        change.seal().await?.commit(&[]).await?;
    }
    Ok(owner)
}

async fn owner(core: &Core, change: &mut Change) -> Result<Option<Owner>, Error> {
    if store::users::any(change.connection()).await? {
        return Ok(None);
    }
    let given = &core.config.owner_password;
    let generated = given.expose_secret().is_empty();
    let password = if generated { passwords::make_up() } else { given.clone() };
    let hash = Passwords::default().hash(&password).await.map_err(|e| Error::Start(format!("the owner's password: {e}")))?;
    let email = core.config.owner_email.clone();
    let slug = core.config.owner_organization.clone();
    create(change, &email, &hash, &slug).await?;
    Ok(Some(Owner { email, password, generated, organization: slug }))
}

async fn create(change: &mut Change, email: &str, hash: &str, slug: &str) -> Result<(), Error> {
    let new = Meta {
        revision: 1,
        config_version: 0,
        created_at: chrono::DateTime::UNIX_EPOCH, // the database sets both
        updated_at: chrono::DateTime::UNIX_EPOCH,
    };
    let organization = Organization {
        id: Uuid::now_v7(),
        slug: slug.into(),
        display_name: String::new(),
        allowed_origins: Vec::new(),
        audit_full: AuditFullAction::Block.into(),
        pool: DEFAULT_POOL.into(),
        request_log_retention_days: 90,
        audit_sync: AuditSync::Write.into(),
        capture: Capture::default(),
        audit_log_retention_days: 400,
        meta: new,
    };
    let user = User {
        id: Uuid::now_v7(),
        email: email.into(),
        display_name: "Owner".into(),
        disabled: false,
        platform_admin: true,
        meta: new,
    };
    let membership = Membership {
        org_id: organization.id,
        user_id: user.id,
        email: email.into(),
        role: Role::Owner,
        policy_roles: Vec::new(),
        groups: Vec::new(),
        meta: new,
    };
    store::organizations::insert(change.connection(), &organization).await?;
    store::users::insert(change.connection(), &user, hash).await?;
    store::memberships::insert(change.connection(), &membership).await?;
    change.touch(organizations::touched(None, Some(&organization)));
    change.touch(users::touched((None, Some(&user)), true));
    change.touch(memberships::touched(&organization, (None, Some(&membership)), true));
    Ok(())
}
