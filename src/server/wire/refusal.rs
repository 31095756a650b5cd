//! Why the guard refuses a message, in sentences for the caller.

use std::{error::Error, io};

use http::StatusCode;

/// What is wrong with a message. `Display` is a whole sentence for the caller.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The first line is not `method SP target SP version`.
    #[error(
        "The request line must be a method, a target and a version, with one space between each."
    )]
    RequestLine,
    /// The method is not a token, or absurdly long.
    #[error("The request method is not a token as RFC 9110 defines it.")]
    Method,
    /// The method is the one by which the guard announces its own verdicts.
    #[error("The request method REFUSED is not supported.")]
    ReservedMethod,
    /// `CONNECT`.
    #[error("The gateway is not a tunnel: the method CONNECT is not supported.")]
    Connect,
    /// The version is not 1.0 or 1.1.
    #[error("The request line must end with HTTP/1.1 or HTTP/1.0.")]
    Version,
    /// The target has bytes that must be percent-encoded.
    #[error("The request target contains a character that must be percent-encoded.")]
    TargetCharacter,
    /// The target is neither a path nor an `http` or `https` URL.
    #[error("The request target must be a path that begins with a slash, or an http or https URL.")]
    TargetForm,
    /// `*` with a method other than `OPTIONS`.
    #[error("The request target * is for the method OPTIONS only.")]
    Asterisk,
    /// The target is longer than it may be.
    #[error("The request target is longer than 8 KiB.")]
    TargetTooLong,
    /// The URL in the target names another host than `Host` does.
    #[error("The request target names another authority than the Host field.")]
    ForeignAuthority,
    /// HTTP/1.1 without `Host`.
    #[error("The request has no Host field.")]
    HostMissing,
    /// More than one `Host`.
    #[error("The request has more than one Host field.")]
    HostRepeated,
    /// `Host` is not a host with an optional port.
    #[error("The Host field must be a host name or address, and optionally a port.")]
    HostInvalid,
    /// A line ends with LF alone.
    #[error("A line of the request ends with LF alone: lines must end with CR LF.")]
    BareLf,
    /// A CR that no LF follows.
    #[error("The request contains a CR that is not followed by LF.")]
    BareCr,
    /// A field line that begins with a blank.
    #[error("A header field is folded over several lines, which is obsolete.")]
    ObsoleteFold,
    /// A field line without a colon.
    #[error("A header field has no colon.")]
    FieldWithoutColon,
    /// A field name that is empty or not a token.
    #[error("The name of a header field is not a token as RFC 9110 defines it.")]
    FieldName,
    /// A blank between a field's name and its colon.
    #[error("A header field has a blank before its colon.")]
    FieldNameBlank,
    /// A field name with `_`.
    #[error(
        "The name of a header field contains an underscore, which others may read as a hyphen."
    )]
    FieldNameUnderscore,
    /// NUL or another control byte in a field value.
    #[error("The value of a header field contains a control character.")]
    FieldValue,
    /// The head is larger than it may be.
    #[error("The header section of the request is too large.")]
    HeadTooLarge,
    /// More than 100 fields.
    #[error("The request has more than 100 header fields.")]
    TooManyFields,
    /// The head was not complete in time.
    #[error("The request was not complete in time.")]
    HeadTimeout,
    /// `Content-Length` is not a number.
    #[error("The Content-Length field must be one decimal number.")]
    LengthInvalid,
    /// `Content-Length` is beyond 2^63 - 1.
    #[error("The number in the Content-Length field is too large.")]
    LengthOverflow,
    /// More than one `Content-Length`, equal or not.
    #[error("The request has more than one Content-Length field.")]
    LengthRepeated,
    /// Two ways to tell where the body ends.
    #[error("The request has both Content-Length and Transfer-Encoding.")]
    LengthAndEncoding,
    /// A `Transfer-Encoding` that is not exactly `chunked`.
    #[error("The Transfer-Encoding field must be chunked and nothing else.")]
    EncodingUnknown,
    /// More than one `Transfer-Encoding`.
    #[error("The request has more than one Transfer-Encoding field.")]
    EncodingRepeated,
    /// HTTP/1.0 does not know `Transfer-Encoding`.
    #[error("A request of HTTP/1.0 cannot have a Transfer-Encoding field.")]
    EncodingInHttp10,
    /// A chunk does not begin with 1 to 16 hexadecimal digits.
    #[error("A chunk of the request body must begin with its size, 1 to 16 hexadecimal digits.")]
    ChunkSize,
    /// A chunk extension with odd bytes.
    #[error("A chunk extension contains a character that is not allowed there.")]
    ChunkExtension,
    /// One line of a chunk, or all extensions together, are larger than they may be.
    #[error("The chunk extensions of the request body are too long.")]
    ChunkExtensionTooLong,
    /// The data of a chunk is not followed by CR LF.
    #[error("The data of a chunk must be followed by CR LF.")]
    ChunkEnd,
    /// A trailer field that would change how the message is read.
    #[error("The request body is followed by a trailer field that is not allowed there.")]
    TrailerForbidden,
    /// The trailer section is larger than it may be.
    #[error("The trailer fields of the request are too large.")]
    TrailersTooLarge,
}

impl Refusal {
    /// The refusal that broke a body off, if it is what `error` is about.
    pub fn behind(error: &(dyn Error + 'static)) -> Option<Self> {
        // An `io::Error` does not name what it wraps as its source, but the source of that.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let refusal = wrapped.and_then(|inner| inner.downcast_ref::<Self>().copied());
        refusal.or_else(|| Self::behind(error.source()?))
    }

    /// The status of the answer.
    pub const fn status(self) -> StatusCode {
        // All but a handful are plain malformations.
        if matches!(self, Self::HeadTimeout) {
            StatusCode::REQUEST_TIMEOUT
        } else if matches!(self, Self::TargetTooLong) {
            StatusCode::URI_TOO_LONG
        } else if matches!(self, Self::HeadTooLarge | Self::TooManyFields | Self::TrailersTooLarge)
        {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
        } else {
            StatusCode::BAD_REQUEST
        }
    }
}
