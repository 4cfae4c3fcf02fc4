//! What the nouns share of the AIP conventions: names, etags, page tokens, field masks, repeated requests.
//!
//! Knows no noun. Called by every file of `api`.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::error::Error;
use crate::{
    domain::{Meta, Violation, is_slug},
    keys::Custody,
};

#[cfg(test)]
mod tests;

/// The ids in a resource name: `ids("server.name", "organizations/a/servers/b", ["organizations", "servers"])` is `["a", "b"]`.
pub fn ids<'a, const N: usize>(field: &str, name: &'a str, collections: [&str; N]) -> Result<[&'a str; N], Error> {
    let parts: Vec<&str> = name.split('/').collect();
    let fits = parts.len() == 2 * N
        && !name.contains(char::is_control) // Postgres has no text with a zero byte
        && collections.iter().enumerate().all(|(n, collection)| parts[2 * n] == *collection && !parts[2 * n + 1].is_empty());
    if !fits {
        let form = collections.map(|collection| format!("{collection}/{{id}}")).join("/");
        return Err(Error::invalid(field, format!("expected the form {form}")));
    }
    Ok(std::array::from_fn(|n| parts[2 * n + 1]))
}

/// The slug in `organizations/{slug}`.
pub fn organization<'a>(field: &str, name: &'a str) -> Result<&'a str, Error> {
    ids(field, name, ["organizations"]).map(|[slug]| slug)
}

/// A UUID in a name; one that is none names nothing.
pub fn uuid(text: &str, name: &str) -> Result<Uuid, Error> {
    Uuid::try_parse(text).ok().filter(|id| id.hyphenated().to_string() == text).ok_or_else(|| Error::NotFound(name.into()))
}

/// The id that a caller wishes for a new resource.
pub fn new_id(field: &str, id: &str) -> Result<(), Error> {
    if is_slug(id) { Ok(()) } else { Err(Error::invalid(field, crate::domain::SLUG_RULE)) }
}

/// The resource of a request, which must be there.
pub fn present<T>(field: &str, resource: Option<T>) -> Result<T, Error> {
    resource.ok_or_else(|| Error::invalid(field, "expected the resource"))
}

/// What a resource's etag is at a revision. Opaque: bound to the resource, so that another's never fits.
pub fn etag(uid: &str, meta: &Meta) -> String {
    let hash = Sha256::new().chain_update(uid).chain_update(meta.revision.to_be_bytes()).finalize();
    URL_SAFE_NO_PAD.encode(&hash[..12])
}

/// Refuses a change of something that has changed since the caller read it. An empty etag asks for no check.
pub fn check_etag(name: &str, given: &str, uid: &str, meta: &Meta) -> Result<(), Error> {
    if given.is_empty() || given == etag(uid, meta) { Ok(()) } else { Err(Error::Stale(name.into())) }
}

/// A URL as the records may have it: without what can carry a secret.
pub fn place(url: &str) -> String {
    let Ok(uri) = url.parse::<http::Uri>() else { return String::new() };
    let host = uri.authority().map_or("", |authority| authority.as_str().rsplit('@').next().unwrap_or_default());
    format!("{}://{host}{}", uri.scheme_str().unwrap_or_default(), uri.path())
}

/// A moment as protobuf has it.
pub fn timestamp(at: chrono::DateTime<chrono::Utc>) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: at.timestamp(), nanos: i32::try_from(at.timestamp_subsec_nanos()).unwrap_or_default() }
}

/// A moment of a request.
pub fn moment(field: &str, at: &prost_types::Timestamp) -> Result<chrono::DateTime<chrono::Utc>, Error> {
    let nanos = u32::try_from(at.nanos).ok();
    let moment = nanos.and_then(|nanos| chrono::DateTime::from_timestamp(at.seconds, nanos));
    // Postgres counts from 4713 BC to 294276 AD; nobody means more than this.
    let moment = moment.filter(|at| (0..=9999).contains(&chrono::Datelike::year(at)));
    moment.ok_or_else(|| Error::invalid(field, "expected a moment between the years 0 and 9999"))
}

/// One list, as a page token is bound to it: which list, of which parent, with which filters.
#[derive(Debug)]
pub struct Pages<'a> {
    custody: &'a Custody,
    binding: Vec<u8>,
    /// How many elements this page has, at most.
    pub size: i64,
}

const MAC: &str = "page token";
const MAC_LEN: usize = 16;

impl<'a> Pages<'a> {
    /// `binding` is what makes this list another list: its method, parent and filters.
    pub fn new(custody: &'a Custody, page_size: i32, binding: &[&str]) -> Result<Self, Error> {
        let size = match page_size {
            0 => 50,
            1.. => i64::from(page_size.min(500)),
            _ => return Err(Error::invalid("page_size", "expected 0 to 500")),
        };
        let mut hash = Sha256::new();
        for part in binding {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Ok(Self { custody, binding: hash.finalize().to_vec(), size })
    }

    /// Where the page begins: after this position; none: at the beginning.
    pub fn position<P: DeserializeOwned>(&self, token: &str) -> Result<Option<P>, Error> {
        self.position_of("page_token", token)
    }

    /// As [`Pages::position`], of a token in another field.
    pub fn position_of<P: DeserializeOwned>(&self, field: &str, token: &str) -> Result<Option<P>, Error> {
        if token.is_empty() {
            return Ok(None);
        }
        let refused = || Error::invalid(field, "expected a token that this very list, with these filters, returned");
        let bytes = URL_SAFE_NO_PAD.decode(token).ok().ok_or_else(refused)?;
        let (mac, position) = bytes.split_at_checked(MAC_LEN).ok_or_else(refused)?;
        if !self.custody.mac_holds(MAC, &[&self.binding, position].concat(), mac)? {
            return Err(refused());
        }
        serde_json::from_slice(position).ok().map(Some).ok_or_else(refused)
    }

    /// Cuts `found`, which was read one longer than a page, to the page; with the token of the next, if there is more.
    pub fn cut<T, P: Serialize>(&self, found: &mut Vec<T>, position: impl Fn(&T) -> P) -> Result<String, Error> {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        if found.len() <= size {
            return Ok(String::new());
        }
        found.truncate(size);
        let Some(last) = found.last() else { return Ok(String::new()) };
        self.token(&position(last))
    }

    /// The token of what begins behind a position.
    pub fn token<P: Serialize>(&self, position: &P) -> Result<String, Error> {
        let position = serde_json::to_vec(position).map_err(|e| Error::internal(&e))?;
        let mac = self.custody.mac(MAC, &[self.binding.as_slice(), &position].concat())?;
        Ok(URL_SAFE_NO_PAD.encode([&mac.as_ref()[..MAC_LEN], &position].concat()))
    }
}

/// Which fields a change is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask(Vec<&'static str>);

impl Mask {
    /// Reads the mask of an update of `resource`, whose fields `known` can be changed. Without a mask: those that are set.
    pub fn read<R: Message + Name>(
        mask: Option<&prost_types::FieldMask>,
        resource: &R,
        known: &'static [&'static str],
    ) -> Result<Self, Error> {
        let paths = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
        if paths.is_empty() {
            let set = set_fields(resource)?;
            return Ok(Self(known.iter().copied().filter(|field| set.iter().any(|s| s == field)).collect()));
        }
        if paths == ["*"] {
            return Ok(Self(known.to_vec()));
        }
        let refused = |path: &String| !known.contains(&path.as_str());
        let violations: Vec<Violation> = paths
            .iter()
            .filter(|path| refused(path))
            .map(|path| {
                Violation::new("update_mask", format!("{path:?} cannot be changed; expected some of {}", known.join(", ")))
            })
            .collect();
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        Ok(Self(known.iter().copied().filter(|field| paths.iter().any(|path| path == field)).collect()))
    }

    /// Whether the change is about this field.
    pub fn has(&self, field: &str) -> bool {
        self.0.contains(&field)
    }

    /// The fields, for the records.
    pub fn fields(&self) -> &[&'static str] {
        &self.0
    }
}

/// The contract's descriptors.
pub static DESCRIPTORS: std::sync::LazyLock<DescriptorPool> = std::sync::LazyLock::new(|| {
    DescriptorPool::decode(mcp_gateway::proto::DESCRIPTORS).expect("the descriptors were made at build time")
});

/// The fields of a message that are not empty.
fn set_fields<R: Message + Name>(resource: &R) -> Result<Vec<String>, Error> {
    let descriptor = DESCRIPTORS.get_message_by_name(&R::full_name());
    let Some(descriptor) = descriptor else {
        return Err(Error::invalid("update_mask", "expected the names of the fields to change"));
    };
    let message =
        DynamicMessage::decode(descriptor, resource.encode_to_vec().as_slice()).map_err(|error| Error::internal(&error))?;
    Ok(message.fields().map(|(field, _)| field.name().to_owned()).collect())
}

/// A request that changes something.
pub trait Mutation: Message {
    /// Makes a repetition safe; empty: none.
    fn request_id(&self) -> &str;
    /// Run every check and change nothing.
    fn validate_only(&self) -> bool;
}

macro_rules! mutations {
    ($($message:ident),* $(,)?) => { $(
        impl Mutation for mcp_gateway::proto::admin::v1::$message {
            fn request_id(&self) -> &str {
                &self.request_id
            }
            fn validate_only(&self) -> bool {
                self.validate_only
            }
        }
    )* };
}

macro_rules! plain_mutations {
    ($($message:ident),* $(,)?) => { $(
        impl Mutation for mcp_gateway::proto::admin::v1::$message {
            fn request_id(&self) -> &str {
                ""
            }
            fn validate_only(&self) -> bool {
                false
            }
        }
    )* };
}

mutations!(
    ApplyOrganizationRequest,
    CreateOrganizationRequest,
    UpdateOrganizationRequest,
    DeleteOrganizationRequest,
    CreateUserRequest,
    UpdateUserRequest,
    DeleteUserRequest,
    CreateMembershipRequest,
    UpdateMembershipRequest,
    DeleteMembershipRequest,
    RotateCustodyKeyRequest,
    CreateApiKeyRequest,
    UpdateApiKeyRequest,
    DeleteApiKeyRequest,
    CreateServerRequest,
    UpdateServerRequest,
    DeleteServerRequest,
    SetEndpointStateRequest,
    CreateRolloutRequest,
    ResumeRolloutRequest,
    AbortRolloutRequest,
    CreatePolicyRequest,
    UpdatePolicyRequest,
    DeletePolicyRequest,
    CreateRateLimitRequest,
    UpdateRateLimitRequest,
    DeleteRateLimitRequest,
    CreateJoinTokenRequest,
    DeleteJoinTokenRequest,
    UpdateNodeRequest,
    DeleteNodeRequest,
    RollbackConfigRequest,
    AcceptConfigRequest,
    BumpEpochRequest,
);
plain_mutations!(RevokeApiKeyRequest, SetPasswordRequest);
