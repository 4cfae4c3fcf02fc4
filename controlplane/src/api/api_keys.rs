//! ApiKeyService: credentials of programs that call MCP servers. Reads a request, holds the organisation, changes one row, seals, commits.
//!
//! A secret is made here, answered once and stored as its hash. What a request may say of a key is in `fields`; who may call is in `roles`; what a node would refuse, the change refuses.

use chrono::Utc;
use mcp_gateway::proto::admin::v1::{
    ApiKey, CreateApiKeyRequest, CreateApiKeyResponse, DeleteApiKeyRequest, DeleteApiKeyResponse, GetApiKeyRequest,
    ListApiKeysRequest, ListApiKeysResponse, RevokeApiKeyRequest, UpdateApiKeyRequest, api_key_service_server::ApiKeyService,
};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{
    Api, Begun, admitted,
    aip::{self, Mask, Pages},
    caller::{Caller, Hold},
    error::Error,
};
use crate::{
    domain::{self, Organization, Role, document, ids},
    store::{
        self,
        change::{Change, Kind, Operation, Row, Touched},
    },
};

pub(super) mod fields;

const CREATE: &str = "/mcpgw.admin.v1.ApiKeyService/CreateApiKey";
const LIST: &str = "/mcpgw.admin.v1.ApiKeyService/ListApiKeys";
const UPDATE: &str = "/mcpgw.admin.v1.ApiKeyService/UpdateApiKey";
const DELETE: &str = "/mcpgw.admin.v1.ApiKeyService/DeleteApiKey";
const REVOKE: &str = "/mcpgw.admin.v1.ApiKeyService/RevokeApiKey";

#[tonic::async_trait]
impl ApiKeyService for Api {
    async fn create_api_key(&self, request: Request<CreateApiKeyRequest>) -> Result<Response<CreateApiKeyResponse>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(create(self, &caller, request).await?))
    }

    async fn get_api_key(&self, request: Request<GetApiKeyRequest>) -> Result<Response<ApiKey>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(get(self, &caller, &request.name).await?))
    }

    async fn list_api_keys(&self, request: Request<ListApiKeysRequest>) -> Result<Response<ListApiKeysResponse>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(list(self, &caller, &request).await?))
    }

    async fn update_api_key(&self, request: Request<UpdateApiKeyRequest>) -> Result<Response<ApiKey>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(update(self, &caller, request).await?))
    }

    async fn delete_api_key(&self, request: Request<DeleteApiKeyRequest>) -> Result<Response<DeleteApiKeyResponse>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(delete(self, &caller, request).await?))
    }

    async fn revoke_api_key(&self, request: Request<RevokeApiKeyRequest>) -> Result<Response<ApiKey>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(revoke(self, &caller, request).await?))
    }
}

async fn create(api: &Api, caller: &Caller, request: CreateApiKeyRequest) -> Result<CreateApiKeyResponse, Error> {
    let slug = aip::organization("parent", &request.parent)?;
    let mut change = match api.begin(caller, CREATE, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    let org = caller.organization(change.connection(), slug, Hold::Change).await?;
    let given = aip::present("api_key", request.api_key.as_ref())?;
    let secret = ids::secret();
    let mut key = fields::new(org.id, ids::sha256(&secret));
    fields::owner_and_end(&mut key, given, Utc::now())?;
    fields::apply(&mut key, given, &fields::ALL)?;
    if let Some(user) = key.user_id {
        may_speak_for(caller, user, store::api_keys::role_of(change.connection(), org.id, user).await?)?;
    }
    let mut key = store::api_keys::insert(change.connection(), &key).await?;
    touch(&mut change, &org, None, Some(&key));
    change.detail(fields::record(&key, &fields::ALL));
    let sealed = change.seal().await?;
    key.meta = sealed.stamp(key.meta);
    // A key that is not kept has no secret to show.
    let secret = if request.validate_only { String::new() } else { format!("mcpgw_{}_{}", key.id, secret.as_str()) };
    api.finish(sealed, CreateApiKeyResponse { api_key: Some(fields::message(&org.slug, &key)), secret }).await
}

async fn get(api: &Api, caller: &Caller, name: &str) -> Result<ApiKey, Error> {
    let [slug, key_id] = parse("name", name)?;
    let mut connection = api.core.store.connection().await?;
    let org = caller.organization(&mut connection, slug, Hold::Read).await?;
    let found = store::api_keys::get(&mut connection, org.id, key_id).await?;
    found.map(|key| fields::message(&org.slug, &key)).ok_or_else(|| Error::NotFound(name.into()))
}

async fn list(api: &Api, caller: &Caller, request: &ListApiKeysRequest) -> Result<ListApiKeysResponse, Error> {
    let slug = aip::organization("parent", &request.parent)?;
    let mut connection = api.core.store.connection().await?;
    let org = caller.organization(&mut connection, slug, Hold::Read).await?;
    let pages = Pages::new(&api.core.custody, request.page_size, &[LIST, &org.id.to_string()])?;
    let after: String = pages.position(&request.page_token)?.unwrap_or_default();
    let mut found = store::api_keys::page(&mut connection, org.id, &after, pages.size + 1).await?;
    let next_page_token = pages.cut(&mut found, |key| key.id.clone())?;
    let api_keys = found.iter().map(|key| fields::message(&org.slug, key)).collect();
    Ok(ListApiKeysResponse { api_keys, next_page_token })
}

async fn update(api: &Api, caller: &Caller, request: UpdateApiKeyRequest) -> Result<ApiKey, Error> {
    let given = aip::present("api_key", request.api_key.as_ref())?;
    let [slug, key_id] = parse("api_key.name", &given.name)?;
    let mask = Mask::read(request.update_mask.as_ref(), given, &fields::ALL)?;
    let mut change = match api.begin(caller, UPDATE, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    let org = caller.organization(change.connection(), slug, Hold::Change).await?;
    let found = store::api_keys::lock(change.connection(), org.id, key_id).await?;
    let before = found.ok_or_else(|| Error::NotFound(given.name.clone()))?;
    let mut key = before.clone();
    aip::check_etag(&given.name, &given.etag, &key.uid.to_string(), &key.meta)?;
    fields::same_owner_and_end(&key, given)?;
    fields::apply(&mut key, given, mask.fields())?;
    let key = store::api_keys::update(change.connection(), &key).await?;
    touch(&mut change, &org, Some(&before), Some(&key));
    change.detail(fields::record(&key, mask.fields()));
    finish(api, change, &org, key).await
}

async fn delete(api: &Api, caller: &Caller, request: DeleteApiKeyRequest) -> Result<DeleteApiKeyResponse, Error> {
    let [slug, key_id] = parse("name", &request.name)?;
    let mut change = match api.begin(caller, DELETE, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    let org = caller.organization(change.connection(), slug, Hold::Change).await?;
    let found = store::api_keys::lock(change.connection(), org.id, key_id).await?;
    let key = found.ok_or_else(|| Error::NotFound(request.name.clone()))?;
    aip::check_etag(&request.name, &request.etag, &key.uid.to_string(), &key.meta)?;
    store::api_keys::delete(change.connection(), &key.id).await?;
    touch(&mut change, &org, Some(&key), None);
    let sealed = change.seal().await?;
    let answer = DeleteApiKeyResponse { config_version: sealed.version() };
    api.finish(sealed, answer).await
}

async fn revoke(api: &Api, caller: &Caller, request: RevokeApiKeyRequest) -> Result<ApiKey, Error> {
    let [slug, key_id] = parse("name", &request.name)?;
    let mut change = match api.begin(caller, REVOKE, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    let org = caller.organization(change.connection(), slug, Hold::Change).await?;
    let found = store::api_keys::lock(change.connection(), org.id, key_id).await?;
    let key = found.ok_or_else(|| Error::NotFound(request.name.clone()))?;
    if key.revoked_at.is_some() {
        return Ok(fields::message(&org.slug, &key)); // whatever the etag: what was wanted is so
    }
    aip::check_etag(&request.name, &request.etag, &key.uid.to_string(), &key.meta)?;
    let before = key;
    let key = store::api_keys::revoke(change.connection(), &before.id).await?;
    touch(&mut change, &org, Some(&before), Some(&key));
    change.action("api_key.revoke");
    finish(api, change, &org, key).await
}

/// A key of a user is that user to every server: administrators make them for everybody but owners.
fn may_speak_for(caller: &Caller, user: Uuid, role: Option<i32>) -> Result<(), Error> {
    let role = role.ok_or_else(|| Error::invalid("api_key.user", "expected a member of the organisation"))?;
    let free = role != i32::from(Role::Owner) || caller.user == user;
    if free || caller.platform_admin || caller.role() == Some(Role::Owner) {
        return Ok(());
    }
    Err(Error::Denied("only owners make keys of owners".into()))
}

/// Seals and commits a change whose row is written.
async fn finish(api: &Api, change: Box<Change>, org: &Organization, mut key: domain::ApiKey) -> Result<ApiKey, Error> {
    let sealed = change.seal().await?;
    key.meta = sealed.stamp(key.meta);
    api.finish(sealed, fields::message(&org.slug, &key)).await
}

/// Says what became of a key: new without `before`, gone without `after`.
pub(super) fn touch(change: &mut Change, org: &Organization, before: Option<&domain::ApiKey>, after: Option<&domain::ApiKey>) {
    let Some(either) = after.or(before) else { return };
    let document = |key| document::of(&fields::message(&org.slug, key));
    change.touch(Touched {
        kind: Kind::ApiKey,
        operation: Operation::between(before, after),
        resource: fields::name(&org.slug, &either.id),
        org: Some((org.id, org.slug.clone())),
        row: after.map_or(Row::None, |key| Row::ApiKey(key.id.clone())),
        reaches_nodes: true,
        before: before.map(document),
        after: after.map(document),
        credential: None,
    });
}

fn parse<'a>(field: &str, name: &'a str) -> Result<[&'a str; 2], Error> {
    aip::ids(field, name, ["organizations", "apiKeys"])
}
