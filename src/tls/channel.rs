//! The server's end of a TLS session after the handshake, without I/O.
//!
//! Bytes from the socket go into [`Channel::receive`], bytes for the socket come
//! out of every method, into a buffer of the caller's. What is kept inside is at
//! most one incomplete record, whose length was checked before it was buffered.
//! The first error ends a channel: nothing is decrypted or sealed after it.

use std::mem;

use super::alert::Alert;
use super::record::{self, HEADER, MAX_PLAIN, Opener, SealError, Sealer};
use super::state::{MAX_FRAGMENT, Suite, TlsState, Version};

/// Records without application data that a peer may send in a row. Each costs us
/// work and some an answer; no honest peer comes near.
const MAX_IDLE_RECORDS: u8 = 32;

const FATAL: u8 = 2;
const WARNING: u8 = 1;
const CLIENT_HELLO: u8 = 1;
const KEY_UPDATE: u8 = 24;

/// Whether more can come from the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Progress {
    /// The peer may send more.
    Open,
    /// The peer said close_notify: a clean end. Whatever comes after is ignored.
    Closed,
}

/// Why a TLS session cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TlsError {
    /// The peer broke the protocol, and was sent this alert.
    #[error("the peer broke the TLS protocol: {0}")]
    Refused(Alert),
    /// The peer gave up with this alert.
    #[error("the peer ended the TLS session: {0}")]
    PeerAlert(Alert),
    /// The connection ended without a close_notify: data may be missing.
    #[error("the connection ended without a TLS close_notify")]
    Truncated,
    /// A TLS 1.2 key has sealed as many records as is safe and cannot be renewed.
    #[error("the TLS 1.2 session has sent as many records as its key allows")]
    RecordLimit,
    /// One side has said close_notify already.
    #[error("the TLS session is closed")]
    Closed,
    /// An earlier error has ended this session.
    #[error("the TLS session failed before")]
    Failed,
    /// The cipher refused its key or its input.
    #[error("the cipher failed")]
    Cipher,
}

impl From<Alert> for TlsError {
    fn from(alert: Alert) -> Self {
        TlsError::Refused(alert)
    }
}

impl From<SealError> for TlsError {
    fn from(_: SealError) -> Self {
        TlsError::Cipher
    }
}

/// The record layer of one session, server side.
///
/// Several methods append to an output buffer. Those bytes must reach the socket
/// in the order of the calls: their sequence numbers count on it.
pub struct Channel {
    version: Version,
    suite: Suite,
    opener: Opener,
    sealer: Sealer,
    idle_records: u8,
    /// A TLS 1.3 handshake message that is not yet whole, at most 4 bytes.
    fragment: Vec<u8>,
    /// The beginning of a record that is not yet whole, header included.
    partial: Vec<u8>,
    update_owed: bool,
    peer_closed: bool,
    closed: bool,
    failed: bool,
}

impl Channel {
    /// Goes on where the former owner of `state` stopped.
    ///
    /// # Errors
    /// [`TlsError::Cipher`] if the secrets do not fit the cipher.
    pub fn resume(state: TlsState) -> Result<Channel, TlsError> {
        let TlsState {
            version,
            suite,
            client,
            server,
            idle_records,
            fragment,
            partial,
        } = state;
        Ok(Channel {
            version,
            suite,
            opener: Opener::new(version, suite, client)?,
            sealer: Sealer::new(version, suite, server)?,
            idle_records,
            fragment,
            partial,
            update_owed: false,
            peer_closed: false,
            closed: false,
            failed: false,
        })
    }

    /// The state for the next owner. What was appended to an output buffer and has
    /// not reached the socket is the caller's to pass on, to be written before
    /// anything that the next owner seals; so is what is decrypted and not yet used.
    /// An incomplete record travels in the state.
    ///
    /// # Errors
    /// As of [`Channel::check`].
    pub fn into_state(self) -> Result<TlsState, TlsError> {
        self.check()?;
        Ok(TlsState {
            version: self.version,
            suite: self.suite,
            client: self.opener.into_direction(),
            server: self.sealer.into_direction(),
            idle_records: self.idle_records,
            fragment: self.fragment,
            partial: self.partial,
        })
    }

    /// Can this session go on, here or with another owner?
    ///
    /// # Errors
    /// [`TlsError::Failed`] and [`TlsError::Closed`]: it has no future.
    pub fn check(&self) -> Result<(), TlsError> {
        match () {
            () if self.failed => Err(TlsError::Failed),
            () if self.closed || self.peer_closed => Err(TlsError::Closed),
            () => Ok(()),
        }
    }

    /// The session's protocol version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The session's cipher.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Takes bytes as they came from the socket, split anywhere. Appends what is
    /// whole and authentic to `plain`, and what the peer must be answered (the
    /// answer to a KeyUpdate, an alert) to `out`.
    ///
    /// # Errors
    /// The session is over. `out` may hold an alert that should still be sent;
    /// `plain` what came before the error.
    pub fn receive(
        &mut self,
        ciphertext: &[u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Progress, TlsError> {
        if self.failed {
            return Err(TlsError::Failed);
        }
        let result = self
            .records(ciphertext, plain, out)
            .and_then(|()| self.answer_update(out));
        if let Err(error) = result {
            return Err(self.fail(error, out));
        }
        Ok(if self.peer_closed {
            Progress::Closed
        } else {
            Progress::Open
        })
    }

    /// To be called when the socket says end of file: was it a clean end?
    ///
    /// # Errors
    /// [`TlsError::Truncated`] if the peer did not say close_notify before.
    pub fn end_of_file(&self) -> Result<(), TlsError> {
        if self.peer_closed {
            Ok(())
        } else {
            Err(TlsError::Truncated)
        }
    }

    /// Appends `plain` as records of at most 16 KiB. Renews the key by itself
    /// before it has sealed too much (TLS 1.3).
    ///
    /// # Errors
    /// [`TlsError::RecordLimit`] where the key cannot be renewed (TLS 1.2): what
    /// is in `out` is still good, and [`Channel::close`] still possible.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        if self.failed {
            return Err(TlsError::Failed);
        }
        if self.closed {
            return Err(TlsError::Closed);
        }
        let records = plain.len().div_ceil(MAX_PLAIN);
        // 29 bytes: TLS 1.2's header, explicit nonce and tag, the longest overhead.
        out.reserve(plain.len() + records * 29);
        for chunk in plain.chunks(MAX_PLAIN) {
            if self.sealer.at_limit() {
                match self.version {
                    Version::Tls13 => self.update_own_key(out)?,
                    Version::Tls12 => return Err(TlsError::RecordLimit),
                }
            }
            if let Err(SealError) = self.sealer.seal(record::APPLICATION_DATA, chunk, out) {
                self.failed = true;
                return Err(TlsError::Cipher);
            }
            self.idle_records = 0;
        }
        Ok(())
    }

    /// Appends a close_notify: the peer can tell the end from a cut connection.
    /// Nothing can be sealed afterwards. Does nothing the second time.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if !self.closed && !self.failed {
            self.closed = true;
            self.send_alert(WARNING, Alert::CLOSE_NOTIFY, out);
        }
    }

    #[cfg(test)]
    pub(super) fn limit_records(&mut self, limit: u64) {
        self.sealer.lower_limit(limit);
    }

    #[cfg(test)]
    pub(super) fn fragment_is_empty(&self) -> bool {
        self.fragment.is_empty()
    }

    fn fail(&mut self, error: TlsError, out: &mut Vec<u8>) -> TlsError {
        self.failed = true;
        let alert = match error {
            TlsError::Refused(alert) => Some(alert),
            TlsError::PeerAlert(_) => None,
            _ => Some(Alert::INTERNAL_ERROR),
        };
        if let (Some(alert), false) = (alert, self.closed) {
            self.send_alert(FATAL, alert, out);
        }
        error
    }

    fn send_alert(&mut self, level: u8, alert: Alert, out: &mut Vec<u8>) {
        // An alert is a courtesy: if the cipher fails now, the end of the
        // connection says the same.
        let _ = self.sealer.seal(record::ALERT, &[level, alert.code()], out);
    }

    fn records(&mut self, mut input: &[u8], plain: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<(), TlsError> {
        while !self.peer_closed {
            if self.partial.is_empty() {
                let Some((header, rest)) = input.split_first_chunk::<HEADER>() else {
                    self.partial.extend_from_slice(input);
                    return Ok(());
                };
                let length = record::body_length(header, self.version)?;
                let Some((body, rest)) = rest.split_at_checked(length) else {
                    self.partial.extend_from_slice(input);
                    return Ok(());
                };
                input = rest;
                self.record(header, body, plain, out)?;
            } else {
                input = self.complete(HEADER, input);
                let Some((&header, _)) = self.partial.split_first_chunk::<HEADER>() else {
                    return Ok(());
                };
                let length = record::body_length(&header, self.version)?;
                input = self.complete(HEADER + length, input);
                if self.partial.len() < HEADER + length {
                    return Ok(());
                }
                let mut whole = mem::take(&mut self.partial);
                self.record(&header, &whole[HEADER..], plain, out)?;
                whole.clear();
                self.partial = whole;
            }
        }
        Ok(())
    }

    /// Moves bytes to the partial record until it has `length`.
    fn complete<'a>(&mut self, length: usize, input: &'a [u8]) -> &'a [u8] {
        let missing = length.saturating_sub(self.partial.len()).min(input.len());
        let (taken, rest) = input.split_at(missing);
        self.partial.extend_from_slice(taken);
        rest
    }

    fn record(
        &mut self,
        header: &[u8; HEADER],
        body: &[u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        let before = plain.len();
        let kind = self.opener.open(header, body, plain)?;
        if kind != record::HANDSHAKE && !self.fragment.is_empty() {
            plain.truncate(before);
            return Err(Alert::UNEXPECTED_MESSAGE.into());
        }
        if kind == record::APPLICATION_DATA && plain.len() > before {
            self.idle_records = 0;
            return Ok(());
        }
        self.idle_records = self.idle_records.saturating_add(1);
        if self.idle_records > MAX_IDLE_RECORDS {
            plain.truncate(before);
            return Err(Alert::UNEXPECTED_MESSAGE.into());
        }
        let content = &plain[before..];
        let result = match (kind, self.version) {
            (record::APPLICATION_DATA, _) => Ok(()),
            (record::ALERT, _) => self.alert(content),
            (record::HANDSHAKE, Version::Tls13) => self.handshake13(content),
            (record::HANDSHAKE, Version::Tls12) => self.handshake12(content, out),
            _ => Err(Alert::UNEXPECTED_MESSAGE.into()),
        };
        plain.truncate(before);
        result
    }

    fn alert(&mut self, content: &[u8]) -> Result<(), TlsError> {
        let &[level, code] = content else {
            return Err(Alert::DECODE_ERROR.into());
        };
        let alert = Alert::from_code(code);
        match (self.version, level) {
            _ if alert == Alert::CLOSE_NOTIFY => {
                self.peer_closed = true;
                Ok(())
            }
            // TLS 1.3 has no levels any more: all but these two are fatal.
            (Version::Tls13, _) if alert == Alert::USER_CANCELED => Ok(()),
            (Version::Tls12, WARNING) => Ok(()),
            (Version::Tls12, level) if level != FATAL => Err(Alert::ILLEGAL_PARAMETER.into()),
            _ => Err(TlsError::PeerAlert(alert)),
        }
    }

    /// The only message a client may send after a handshake without tickets and
    /// client certificates is KeyUpdate (RFC 8446 section 4.6.3): 24, a length
    /// of 1 in three bytes, and whether an answer is wanted.
    fn handshake13(&mut self, content: &[u8]) -> Result<(), TlsError> {
        // Nothing may follow it in its record, which ends the life of a key.
        if content.is_empty() || self.fragment.len() + content.len() > MAX_FRAGMENT + 1 {
            return Err(Alert::UNEXPECTED_MESSAGE.into());
        }
        self.fragment.extend_from_slice(content);
        if self.fragment[0] != KEY_UPDATE {
            return Err(Alert::UNEXPECTED_MESSAGE.into());
        }
        let wanted = match self.fragment[..] {
            [_, 0, 0, 1, wanted] => wanted,
            [_, 0, 0, 1] | [_, 0, 0] | [_, 0] | [_] => return Ok(()),
            _ => return Err(Alert::DECODE_ERROR.into()),
        };
        match wanted {
            0 => {}
            1 => self.update_owed = true,
            _ => return Err(Alert::ILLEGAL_PARAMETER.into()),
        }
        self.fragment.clear();
        self.opener.update()?;
        Ok(())
    }

    /// A ClientHello asks for renegotiation, which is refused with a warning
    /// (RFC 5246 section 7.2.2). Nothing else may come.
    fn handshake12(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        let whole = match content {
            &[CLIENT_HELLO, a, b, c, ref rest @ ..] => {
                u32::from_be_bytes([0, a, b, c]) as usize == rest.len()
            }
            _ => false,
        };
        if !whole {
            return Err(Alert::UNEXPECTED_MESSAGE.into());
        }
        if !self.closed {
            self.send_alert(WARNING, Alert::NO_RENEGOTIATION, out);
        }
        Ok(())
    }

    /// Several requests that arrive together need one answer.
    fn answer_update(&mut self, out: &mut Vec<u8>) -> Result<(), TlsError> {
        if mem::take(&mut self.update_owed) && !self.closed {
            self.update_own_key(out)?;
        }
        Ok(())
    }

    /// Announces the next key under the present one, then changes to it.
    fn update_own_key(&mut self, out: &mut Vec<u8>) -> Result<(), TlsError> {
        let updated = self
            .sealer
            .seal(record::HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0], out)
            .and_then(|()| self.sealer.update());
        if updated.is_err() {
            // The peer may or may not have been told: no record fits any more.
            self.failed = true;
        }
        Ok(updated?)
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel")
            .field("version", &self.version)
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}
