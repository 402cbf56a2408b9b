//! Alert codes (RFC 8446 section 6, RFC 5246 section 7.2).

use std::fmt;

/// The description of a TLS alert. Any byte can come from a peer, so this is a
/// number with names for those that this record layer sends or treats specially.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alert(u8);

impl Alert {
    /// The sender will not write any more: the one clean end of a session.
    pub const CLOSE_NOTIFY: Alert = Alert(0);
    /// A record of a kind that has no place here.
    pub const UNEXPECTED_MESSAGE: Alert = Alert(10);
    /// A record that does not authenticate.
    pub const BAD_RECORD_MAC: Alert = Alert(20);
    /// A record longer than the protocol allows.
    pub const RECORD_OVERFLOW: Alert = Alert(22);
    /// A field out of its range.
    pub const ILLEGAL_PARAMETER: Alert = Alert(47);
    /// A message whose length is wrong.
    pub const DECODE_ERROR: Alert = Alert(50);
    /// A record of another protocol version.
    pub const PROTOCOL_VERSION: Alert = Alert(70);
    /// We failed, the peer did nothing wrong.
    pub const INTERNAL_ERROR: Alert = Alert(80);
    /// The handshake was cancelled by its user; a close_notify follows.
    pub const USER_CANCELED: Alert = Alert(90);
    /// Renegotiation is refused (TLS 1.2).
    pub const NO_RENEGOTIATION: Alert = Alert(100);
    /// No application protocol in common, or none offered where one is required.
    pub const NO_APPLICATION_PROTOCOL: Alert = Alert(120);

    /// The code on the wire.
    pub const fn code(self) -> u8 {
        self.0
    }

    pub(super) const fn from_code(code: u8) -> Self {
        Alert(code)
    }

    fn name(self) -> &'static str {
        match self.0 {
            0 => "close_notify",
            10 => "unexpected_message",
            20 => "bad_record_mac",
            22 => "record_overflow",
            40 => "handshake_failure",
            42 => "bad_certificate",
            45 => "certificate_expired",
            46 => "certificate_unknown",
            47 => "illegal_parameter",
            48 => "unknown_ca",
            49 => "access_denied",
            50 => "decode_error",
            51 => "decrypt_error",
            70 => "protocol_version",
            71 => "insufficient_security",
            80 => "internal_error",
            90 => "user_canceled",
            100 => "no_renegotiation",
            120 => "no_application_protocol",
            _ => "alert",
        }
    }
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}
