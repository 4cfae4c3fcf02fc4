//! Resource names from what people type: a bare id or the full name.
//! Owns the look-up of users by email address. Called by verbs.

use mcp_gateway::proto::admin::v1::user_service_client::UserServiceClient;
use mcp_gateway::proto::admin::v1::{ListUsersRequest, User};

use crate::context::Context;
use crate::failure::Failure;

/// `organizations/{slug}`.
pub fn org(given: &str) -> String {
    top("organizations", given)
}

/// `{collection}/{id}` outside organisations.
pub fn top(collection: &str, given: &str) -> String {
    if given.starts_with(&format!("{collection}/")) {
        return given.to_owned();
    }
    format!("{collection}/{given}")
}

/// `organizations/{slug}/{collection}/{id}`.
pub fn child(cx: &Context, collection: &str, given: &str) -> anyhow::Result<String> {
    if given.starts_with("organizations/") {
        return Ok(given.to_owned());
    }
    Ok(format!("{}/{collection}/{given}", cx.org()?))
}

/// The organisation, if the full name says one, and the id: of a bare id or `organizations/{slug}/{collection}/{id}`.
pub fn parts<'n>(collection: &str, given: &'n str) -> Result<(Option<&'n str>, &'n str), Failure> {
    match given.split('/').collect::<Vec<_>>()[..] {
        [id] => Ok((None, id)),
        ["organizations", org, kind, id] if kind == collection => Ok((Some(org), id)),
        _ => Err(Failure::Usage(format!("{given}: expected an id or organizations/ORG/{collection}/ID"))),
    }
}

/// The last part of a name.
pub fn id(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// `users/{uid}`, of an id, a name, an email address or `me`.
pub async fn user(cx: &Context, given: &str) -> anyhow::Result<String> {
    if given == "me" {
        let saved = cx.saved()?.map(|it| it.user).filter(|it| !it.is_empty());
        return saved.ok_or_else(|| Failure::Refused("not signed in: who is `me`?".into()).into());
    }
    if !given.contains('@') {
        return Ok(top("users", given));
    }
    let own = cx.saved()?.filter(|it| it.email.eq_ignore_ascii_case(given));
    match own {
        Some(saved) => Ok(saved.user),
        None => Ok(find_user(cx, given).await?.name),
    }
}

async fn find_user(cx: &Context, email: &str) -> anyhow::Result<User> {
    let mut page_token = String::new();
    loop {
        let request = ListUsersRequest { page_size: 500, page_token };
        let page = cx.call(UserServiceClient::new, request, async |c, r| c.list_users(r).await).await?;
        let found = page.users.into_iter().find(|it| it.email.to_lowercase() == email.to_lowercase());
        if let Some(user) = found {
            return Ok(user);
        }
        if page.next_page_token.is_empty() {
            return Err(Failure::NotFound(format!("there is no user with the email address {email}")).into());
        }
        page_token = page.next_page_token;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_bare_or_whole() {
        assert_eq!(parts("servers", "time").unwrap(), (None, "time"));
        assert_eq!(parts("servers", "organizations/acme/servers/time").unwrap(), (Some("acme"), "time"));
        for wrong in ["servers/time", "organizations/acme/policies/time", "organizations/acme", "a/b/c/d/e"] {
            assert!(matches!(parts("servers", wrong), Err(Failure::Usage(_))), "{wrong}");
        }
    }
}
