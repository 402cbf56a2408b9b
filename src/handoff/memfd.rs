//! Payloads that are too long for a message: a memfd, sealed so that the receiver
//! can rely on what it checks (memfd_create(2), fcntl(2)).

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use zeroize::Zeroizing;

const SEALS: SealFlags = SealFlags::SEAL
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE);

/// A sealed memfd with these bytes.
pub(crate) fn create(bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = memfd_create("duckgres", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, SEALS)?;
    Ok(file.into())
}

/// The bytes of a sealed memfd that has exactly `length` of them. The caller has
/// bounded `length`; nothing is allocated before the file is known to have them.
pub(crate) fn read(fd: OwnedFd, length: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let invalid = |message| io::Error::new(io::ErrorKind::InvalidData, message);
    // Any other file fails here with EINVAL: reading it might block.
    let seals = fcntl_get_seals(&fd).map_err(|_| invalid("the payload is not in a memfd"))?;
    if !seals.contains(SEALS) {
        return Err(invalid("the memfd is not sealed"));
    }
    let file = File::from(fd);
    if file.metadata()?.len() != length as u64 {
        return Err(invalid("the memfd has another length than the message says"));
    }
    let mut bytes = Zeroizing::new(vec![0; length]);
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}
