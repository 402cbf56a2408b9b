//! The descriptors that systemd keeps for a service while it has no process: over
//! its restart, over its crash. They come back with those of socket units, by their
//! names ([`activation`](super::activation)). Source: sd_notify(3), FDSTORE=1.
//!
//! What a socket unit has opened does not belong here: a restart of that unit would
//! then find its address in use.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::notify;

/// Keeps a copy under this name, which has no colon, until [`remove`] or until the
/// unit is stopped. Nothing without systemd; it leaves out what it has already. Only
/// the main process may ask for it, and is not told of a store that is full.
pub fn keep(name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
    // A listening socket has no end that systemd could see.
    say(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0\n"), &[fd])
}

/// Closes systemd's copies of this name.
pub fn remove(name: &str) -> io::Result<()> {
    say(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n"), &[])
}

fn say(text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let Some(socket) = notify::socket() else {
        return Ok(());
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let text = [IoSlice::new(text.as_bytes())];
    sendmsg(socket?, &text, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}
