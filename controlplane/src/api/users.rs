//! Users. Platform administrators make, disable and delete them; everybody sees and renames oneself and sets one's password.

use mcp_gateway::proto::admin::v1::{
    CreateUserRequest, DeleteUserRequest, DeleteUserResponse, GetUserRequest, ListUsersRequest, ListUsersResponse,
    SetPasswordRequest, SetPasswordResponse, UpdateUserRequest, User as Wire, user_service_server::UserService,
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{
    Api, Begun, admitted,
    aip::{self, Mask, Pages},
    caller::Caller,
    error::Error,
    passwords,
};
use crate::{
    domain::{Meta, User, document, rules::Rules},
    store::{
        change::{Change, Kind, Operation, Row, Touched},
        sessions, users,
    },
};

const CREATE: &str = "/mcpgw.admin.v1.UserService/CreateUser";
const UPDATE: &str = "/mcpgw.admin.v1.UserService/UpdateUser";
const DELETE: &str = "/mcpgw.admin.v1.UserService/DeleteUser";
const SET_PASSWORD: &str = "/mcpgw.admin.v1.UserService/SetPassword";
const FIELDS: &[&str] = &["email", "display_name", "disabled", "platform_admin"];
/// What one may change of oneself.
const OWN_FIELDS: &[&str] = &["display_name"];

#[tonic::async_trait]
impl UserService for Api {
    async fn create_user(&self, request: Request<CreateUserRequest>) -> Result<Response<Wire>, Status> {
        Ok(Response::new(self.new_user(request).await?))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<Wire>, Status> {
        let (caller, request) = admitted(request)?;
        let id = whom(&caller, "name", &request.name)?;
        let mut connection = self.core.store.connection().await.map_err(Error::from)?;
        let found = users::by_id(&mut connection, id).await.map_err(Error::from)?;
        Ok(Response::new(wire(&found.ok_or(Error::NotFound(request.name))?)))
    }

    async fn list_users(&self, request: Request<ListUsersRequest>) -> Result<Response<ListUsersResponse>, Status> {
        Ok(Response::new(self.page_of_users(request).await?))
    }

    async fn update_user(&self, request: Request<UpdateUserRequest>) -> Result<Response<Wire>, Status> {
        Ok(Response::new(self.change_user(request).await?))
    }

    async fn delete_user(&self, request: Request<DeleteUserRequest>) -> Result<Response<DeleteUserResponse>, Status> {
        Ok(Response::new(self.remove_user(request).await?))
    }

    async fn set_password(&self, request: Request<SetPasswordRequest>) -> Result<Response<SetPasswordResponse>, Status> {
        self.change_password(request).await?;
        Ok(Response::new(SetPasswordResponse {}))
    }
}

impl Api {
    async fn new_user(&self, request: Request<CreateUserRequest>) -> Result<Wire, Error> {
        let (caller, request) = admitted(request)?;
        let given = aip::present("user", request.user.clone())?;
        let row = User { id: Uuid::now_v7(), ..apply(blank(), given, FIELDS) };
        let made_up = request.password.is_empty();
        let password = if made_up { passwords::make_up() } else { SecretString::from(request.password.as_str()) };
        judge(&mut Rules::default(), &row)
            .also(passwords::judge("password", password.expose_secret()))
            .check()
            .map_err(Error::Invalid)?;
        let hash = self.passwords.hash(&password).await?;
        let mut change = match self.begin(&caller, CREATE, &request).await? {
            Begun::Fresh(change) => change,
            Begun::Answered(answer) => return Ok(answer),
        };
        let row = users::insert(change.connection(), &row, &hash).await?;
        change.touch(touched((None, Some(&row)), false));
        change.detail(json!({ "email": row.email, "platform_admin": row.platform_admin }));
        let shown = if made_up && !request.validate_only { password.expose_secret() } else { "" };
        let answer = Wire { initial_password: shown.to_owned(), ..wire(&row) };
        self.finish(change.seal().await?, answer).await
    }

    async fn page_of_users(&self, request: Request<ListUsersRequest>) -> Result<ListUsersResponse, Error> {
        let (_, request) = admitted(request)?;
        let pages = Pages::new(&self.core.custody, request.page_size, &["users"])?;
        let after: Option<Uuid> = pages.position(&request.page_token)?;
        let mut found = users::list(&mut *self.core.store.connection().await?, after, pages.size + 1).await?;
        let next_page_token = pages.cut(&mut found, |user| user.id)?;
        Ok(ListUsersResponse { users: found.iter().map(wire).collect(), next_page_token })
    }

    async fn change_user(&self, request: Request<UpdateUserRequest>) -> Result<Wire, Error> {
        let (caller, request) = admitted(request)?;
        let given = aip::present("user", request.user.clone())?;
        let id = whom(&caller, "user.name", &given.name)?;
        let mask = Mask::read(request.update_mask.as_ref(), &given, FIELDS)?;
        if !caller.platform_admin && mask.fields().iter().any(|field| !OWN_FIELDS.contains(field)) {
            return Err(Error::Denied(format!("of oneself only {} can be changed", OWN_FIELDS.join(", "))));
        }
        let mut change = match self.begin(&caller, UPDATE, &request).await? {
            Begun::Fresh(change) => change,
            Begun::Answered(answer) => return Ok(answer),
        };
        let held = users::hold(change.connection(), id).await?;
        let old = held.ok_or_else(|| Error::NotFound(given.name.clone()))?.user;
        aip::check_etag(&given.name, &given.etag, &old.id.to_string(), &old.meta)?;
        let row = apply(old.clone(), given, mask.fields());
        judge(&mut Rules::default(), &row).check().map_err(Error::Invalid)?;
        let loses = (row.disabled && !old.disabled) || (old.platform_admin && !row.platform_admin);
        if loses {
            void(&mut change, &old).await?;
        }
        let mut row = users::update(change.connection(), &row).await?;
        change.touch(touched((Some(&old), Some(&row)), loses || old.disabled != row.disabled));
        change.detail(json!({ "fields": mask.fields(), "disabled": row.disabled, "platform_admin": row.platform_admin }));
        let sealed = change.seal().await?;
        if sealed.version() > 0 {
            row.meta.config_version = sealed.version().cast_signed();
        }
        self.finish(sealed, wire(&row)).await
    }

    async fn remove_user(&self, request: Request<DeleteUserRequest>) -> Result<DeleteUserResponse, Error> {
        let (caller, request) = admitted(request)?;
        let id = whom(&caller, "name", &request.name)?;
        let mut change = match self.begin(&caller, DELETE, &request).await? {
            Begun::Fresh(change) => change,
            Begun::Answered(answer) => return Ok(answer),
        };
        let held = users::hold(change.connection(), id).await?;
        let row = held.ok_or_else(|| Error::NotFound(request.name.clone()))?.user;
        aip::check_etag(&request.name, &request.etag, &row.id.to_string(), &row.meta)?;
        void(&mut change, &row).await?;
        users::delete(change.connection(), id).await?;
        change.touch(touched((Some(&row), None), true));
        change.detail(json!({ "email": row.email }));
        let sealed = change.seal().await?;
        let answer = DeleteUserResponse { config_version: sealed.version() };
        self.finish(sealed, answer).await
    }

    async fn change_password(&self, request: Request<SetPasswordRequest>) -> Result<(), Error> {
        let (caller, request) = admitted(request)?;
        let id = whom(&caller, "name", &request.name)?;
        if let Some(violation) = passwords::judge("new_password", &request.new_password) {
            return Err(Error::Invalid(vec![violation]));
        }
        let hash = self.passwords.hash(&SecretString::from(request.new_password.as_str())).await?;
        let known = users::password_hash(&mut *self.core.store.connection().await?, id).await?;
        let known = known.ok_or_else(|| Error::NotFound(request.name.clone()))?;
        if id == caller.user {
            let current = SecretString::from(request.current_password.as_str());
            if !self.passwords.check(&current, Some(known.clone())).await? {
                return Err(Error::invalid("current_password", "expected your current password"));
            }
        }
        let mut change = match self.begin::<SetPasswordResponse>(&caller, SET_PASSWORD, &request).await? {
            Begun::Fresh(change) => change,
            Begun::Answered(SetPasswordResponse {}) => return Ok(()),
        };
        let held = users::hold(change.connection(), id).await?;
        // What was checked must still be the password: two changes at once are one after the other.
        let row = held.filter(|held| held.password_hash == known).ok_or(Error::Contended)?.user;
        users::set_password(change.connection(), id, &hash).await?;
        sessions::revoke_of_user(change.connection(), id, None).await?;
        change.action("user.set_password");
        change.touch(touched((Some(&row), Some(&row)), true));
        self.finish(change.seal().await?, SetPasswordResponse {}).await?;
        Ok(())
    }
}

/// Makes void what a user was given, where that leaves somebody to administer the installation.
async fn void(change: &mut Change, user: &User) -> Result<(), Error> {
    let needed = user.platform_admin && !user.disabled;
    if needed && !users::another_platform_admin(change.connection(), user.id).await? {
        let why = "this is the last platform administrator who can sign in: make another one first";
        return Err(Error::Precondition(why.into()));
    }
    sessions::revoke_of_user(change.connection(), user.id, None).await?;
    Ok(users::void_tokens(change.connection(), user.id).await?)
}

/// The user that a name is of, if it is the caller's business.
fn whom(caller: &Caller, field: &str, name: &str) -> Result<Uuid, Error> {
    let [id] = aip::ids(field, name, ["users"])?;
    if id == "me" {
        return Ok(caller.user);
    }
    let id = aip::uuid(id, name)?;
    if caller.platform_admin || id == caller.user { Ok(id) } else { Err(Error::NotFound(name.into())) }
}

fn blank() -> User {
    let at = chrono::DateTime::UNIX_EPOCH; // the database sets the times
    User {
        id: Uuid::nil(),
        email: String::new(),
        display_name: String::new(),
        disabled: false,
        platform_admin: false,
        meta: Meta { revision: 1, config_version: 0, created_at: at, updated_at: at },
    }
}

fn apply(mut row: User, given: Wire, fields: &[&str]) -> User {
    for field in fields {
        match *field {
            "email" => row.email.clone_from(&given.email),
            "display_name" => row.display_name.clone_from(&given.display_name),
            "disabled" => row.disabled = given.disabled,
            "platform_admin" => row.platform_admin = given.platform_admin,
            _ => {} // `FIELDS` names no other
        }
    }
    row
}

fn judge<'a>(rules: &'a mut Rules, row: &User) -> &'a mut Rules {
    rules.email("user.email", &row.email).display_name("user.display_name", &row.display_name)
}

/// What became of a user: new without the first, gone without the second. One of them is there.
pub fn touched((before, after): (Option<&User>, Option<&User>), reaches_nodes: bool) -> Touched {
    Touched {
        kind: Kind::User,
        operation: Operation::between(before, after),
        resource: after.or(before).map(|row| format!("users/{}", row.id)).unwrap_or_default(),
        org: None,
        row: after.map_or(Row::None, |row| Row::User(row.id)),
        reaches_nodes,
        before: before.map(|row| document::of(&wire(row))),
        after: after.map(|row| document::of(&wire(row))),
        credential: None,
    }
}

fn wire(row: &User) -> Wire {
    Wire {
        name: format!("users/{}", row.id),
        email: row.email.clone(),
        display_name: row.display_name.clone(),
        disabled: row.disabled,
        platform_admin: row.platform_admin,
        initial_password: String::new(),
        uid: row.id.to_string(),
        etag: aip::etag(&row.id.to_string(), &row.meta),
        create_time: Some(aip::timestamp(row.meta.created_at)),
        update_time: Some(aip::timestamp(row.meta.updated_at)),
        config_version: row.meta.config_version.cast_unsigned(),
    }
}
