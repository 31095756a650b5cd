//! What a server says it has not processed: it can be sent again, even if it is a write.

use h2::Reason;

/// How often a request is sent again after it was refused.
const REPEATS: usize = 2;

/// The server has done nothing with a request, and will not (RFC 9113, section 8.7).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unprocessed {
    /// The request came after the last one that this connection serves, which ends.
    Farewell,
    /// The same, and we have overdone it.
    CalmDown,
    /// Only this request was refused.
    Refused,
}

impl Unprocessed {
    /// Whether that is what `error` says, which came instead of the response's head.
    ///
    /// A farewell with a later last request is no error to requests up to it; they end by
    /// themselves, with an answer or with the connection. There is one exception, where two threads
    /// work on a connection: a request that is opened in the very moment of the farewell. It cannot
    /// happen to callers' requests, whose connections belong to one thread.
    pub(super) fn of(error: &hyper::Error) -> Option<Self> {
        let error = std::error::Error::source(error)?.downcast_ref::<h2::Error>()?;
        if !error.is_remote() {
            return None;
        }
        match error.reason() {
            Some(Reason::ENHANCE_YOUR_CALM) if error.is_go_away() => Some(Self::CalmDown),
            _ if error.is_go_away() => Some(Self::Farewell),
            Some(Reason::REFUSED_STREAM) => Some(Self::Refused),
            _ => None,
        }
    }

    /// Whether the connection takes no other request.
    pub(super) const fn ends_connection(self) -> bool {
        !matches!(self, Self::Refused)
    }

    /// Whether the request goes out once more, after so many refusals.
    pub(super) const fn may_repeat(self, refusals: usize) -> bool {
        !matches!(self, Self::CalmDown) && refusals <= REPEATS
    }
}
