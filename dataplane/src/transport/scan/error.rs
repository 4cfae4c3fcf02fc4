//! Every way a body can fail the strict scan. Offsets count bytes from the start of the body.
//! Texts name what is wrong and where, never a value from the body (arguments may be secret).
//! Made by `scan`; the pipeline's error table turns them into a response.

/// Why a body was refused. [`ScanError::code`] is the JSON-RPC error code of the answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// Nothing but whitespace.
    #[error("the body is empty: send one JSON-RPC message")]
    Empty,
    /// More bytes than the server accepts.
    #[error("the body has more than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// Not UTF-8 (RFC 8259 section 8.1).
    #[error("the body is not UTF-8 at byte {at}")]
    NotUtf8 {
        /// Where the first invalid sequence starts.
        at: usize,
    },
    /// A byte order mark, which RFC 8259 section 8.1 forbids.
    #[error("the body starts with a byte order mark")]
    ByteOrderMark,
    /// The text ended inside a value.
    #[error("the body ends at byte {at}, inside {within}")]
    UnexpectedEnd {
        /// The length of the body.
        at: usize,
        /// What was being read.
        within: &'static str,
    },
    /// A byte that JSON's grammar does not allow there.
    #[error("unexpected byte at {at}: expected {expected}")]
    Unexpected {
        /// Where.
        at: usize,
        /// What the grammar allows.
        expected: &'static str,
    },
    /// A backslash followed by something that is not an escape.
    #[error("invalid escape at byte {at}")]
    BadEscape {
        /// Where the backslash is.
        at: usize,
    },
    /// Half of a surrogate pair: parsers disagree about what it means.
    #[error("lone surrogate at byte {at}")]
    LoneSurrogate {
        /// Where the escape starts.
        at: usize,
    },
    /// A raw character below U+0020 inside a string.
    #[error("control character inside a string at byte {at}: escape it")]
    ControlCharacter {
        /// Where.
        at: usize,
    },
    /// Not a number by RFC 8259 section 6.
    #[error("invalid number at byte {at}")]
    BadNumber {
        /// Where the number starts.
        at: usize,
    },
    /// A number beyond the range of a double: parsers disagree between an error and infinity.
    #[error("number out of range at byte {at}")]
    NumberOutOfRange {
        /// Where the number starts.
        at: usize,
    },
    /// Something after the message.
    #[error("bytes after the message at byte {at}")]
    TrailingBytes {
        /// Where.
        at: usize,
    },
    /// Deeper nesting than accepted.
    #[error("nested deeper than {limit} levels at byte {at}")]
    TooDeep {
        /// Where.
        at: usize,
        /// The limit in levels.
        limit: usize,
    },
    /// One object has a key twice (after unescaping): parsers disagree about which one counts.
    #[error("duplicate key at byte {at}")]
    DuplicateKey {
        /// Where the second one starts.
        at: usize,
    },
    /// A key that a laxer parser would take for a protocol key (CVE-2026-27896).
    #[error("the key at byte {at} differs from `{means}` only in case: spell it exactly")]
    FoldedKey {
        /// Where the key starts.
        at: usize,
        /// The protocol key it could be taken for.
        means: &'static str,
    },
    /// U+0000 in a key or a name that decisions are made on: parsers in C end the string there.
    #[error("NUL character in a key or a name at byte {at}")]
    Nul {
        /// Where the string starts.
        at: usize,
    },
    /// Neither an object nor an array.
    #[error("not a JSON-RPC message at byte {at}: expected an object")]
    NotAMessage {
        /// Where.
        at: usize,
    },
    /// A member of the envelope, of `params` or of `_meta` has the wrong type or value.
    #[error("`{member}` at byte {at} must be {expected}")]
    Member {
        /// The member's name.
        member: &'static str,
        /// Where its value starts.
        at: usize,
        /// What it must be.
        expected: &'static str,
    },
    /// A member that every such message has is not there.
    #[error("the message at byte {at} has no `{member}`")]
    Missing {
        /// The member's name.
        member: &'static str,
        /// Where the message starts.
        at: usize,
    },
    /// A message that could be read as two kinds.
    #[error("the message at byte {at} is ambiguous: exactly one of `method`, `result` and `error`")]
    Ambiguous {
        /// Where the message starts.
        at: usize,
    },
    /// `[]`, which JSON-RPC 2.0 section 6 calls an invalid request.
    #[error("the batch is empty")]
    EmptyBatch,
    /// More messages in one batch than accepted.
    #[error("the batch has more than {limit} messages")]
    BatchTooLong {
        /// The limit in messages.
        limit: usize,
    },
}

impl ScanError {
    /// `-32700` (parse error) where the bytes are not JSON, `-32600` (invalid request) where they are JSON that is not accepted.
    pub fn code(&self) -> i32 {
        match self {
            Self::Empty
            | Self::NotUtf8 { .. }
            | Self::ByteOrderMark
            | Self::UnexpectedEnd { .. }
            | Self::Unexpected { .. }
            | Self::BadEscape { .. }
            | Self::LoneSurrogate { .. }
            | Self::ControlCharacter { .. }
            | Self::BadNumber { .. }
            | Self::NumberOutOfRange { .. }
            | Self::TrailingBytes { .. } => -32700,
            Self::TooLarge { .. }
            | Self::TooDeep { .. }
            | Self::DuplicateKey { .. }
            | Self::FoldedKey { .. }
            | Self::Nul { .. }
            | Self::NotAMessage { .. }
            | Self::Member { .. }
            | Self::Missing { .. }
            | Self::Ambiguous { .. }
            | Self::EmptyBatch
            | Self::BatchTooLong { .. } => -32600,
        }
    }

    /// A short, closed name for metrics and audit records.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooLarge { .. } => "too_large",
            Self::NotUtf8 { .. } => "not_utf8",
            Self::ByteOrderMark => "byte_order_mark",
            Self::UnexpectedEnd { .. } | Self::Unexpected { .. } => "syntax",
            Self::BadEscape { .. } => "bad_escape",
            Self::LoneSurrogate { .. } => "lone_surrogate",
            Self::ControlCharacter { .. } => "control_character",
            Self::BadNumber { .. } | Self::NumberOutOfRange { .. } => "bad_number",
            Self::TrailingBytes { .. } => "trailing_bytes",
            Self::TooDeep { .. } => "too_deep",
            Self::DuplicateKey { .. } => "duplicate_key",
            Self::FoldedKey { .. } => "folded_key",
            Self::Nul { .. } => "nul",
            Self::NotAMessage { .. } => "not_a_message",
            Self::Member { .. } => "bad_member",
            Self::Missing { .. } => "missing_member",
            Self::Ambiguous { .. } => "ambiguous",
            Self::EmptyBatch => "empty_batch",
            Self::BatchTooLong { .. } => "batch_too_long",
        }
    }
}
