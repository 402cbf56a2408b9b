//! The PROXY protocol, version 2 (HAProxy's `doc/proxy-protocol.txt`, section
//! 2.2): a load balancer's word for whose connection it forwards.
//!
//! Addresses decide about bans and limits, so only configured balancers are
//! believed. From them the header must come, lest somebody who can reach the
//! port through them chooses to be the balancer; from all others it is no
//! startup packet and ends the connection like any other nonsense.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::fatal::End;
use super::wire::Wire;
use crate::config::Network;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The fixed part of a header.
const FIXED: usize = 16;

/// The longest variable part that is read: addresses, and what a balancer may
/// add about its TLS session or its cloud.
const MAX_REST: usize = 4096;

/// Whose headers are believed.
pub struct Proxies(Vec<Network>);

impl Proxies {
    /// The networks that balancers are in.
    pub fn new(trusted: Vec<Network>) -> Self {
        Self(trusted)
    }

    /// Reads the header of a connection from a balancer: from now on the
    /// socket has the client's address. Takes nothing from other connections.
    pub async fn introduce(&self, wire: &mut Wire) -> Result<(), End> {
        let trusted = wire
            .socket()
            .address()
            .is_some_and(|address| self.0.iter().any(|network| network.contains(address.ip())));
        if !trusted {
            return Ok(());
        }
        let mut fixed = [0; FIXED];
        // A client that comes without a header waits for an answer to fewer
        // bytes than a header has.
        wire.read_exact(&mut fixed[..4]).await?;
        if fixed[..4] != SIGNATURE[..4] {
            return Err(End::silent("a trusted proxy sent no PROXY protocol header"));
        }
        wire.read_exact(&mut fixed[4..]).await?;
        let header = Header::parse(&fixed).map_err(End::silent)?;
        let mut rest = vec![0; header.rest];
        wire.read_exact(&mut rest).await?;
        if let Some(source) = header.source(&rest).map_err(End::silent)? {
            wire.socket().set_address(source);
        }
        Ok(())
    }
}

/// What the fixed part says about the rest.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    source: Source,
    rest: usize,
}

/// Where the client's address is.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    /// The balancer speaks for itself, or does not know.
    Connection,
    V4,
    V6,
}

impl Header {
    fn parse(fixed: &[u8; FIXED]) -> Result<Self, &'static str> {
        let [
            signature @ ..,
            version_and_command,
            family,
            length_high,
            length_low,
        ] = fixed;
        if *signature != SIGNATURE {
            return Err("the PROXY protocol header has another signature");
        }
        if version_and_command >> 4 != 2 {
            return Err("the PROXY protocol header has another version than 2");
        }
        let source = match (version_and_command & 0xf, family) {
            // LOCAL: whatever the addresses say, they are not to be used.
            (0, _) => Source::Connection,
            // PROXY: of an unknown kind, TCP over IPv4 and IPv6, a Unix socket.
            (1, 0x00 | 0x31) => Source::Connection,
            (1, 0x11) => Source::V4,
            (1, 0x21) => Source::V6,
            (1, _) => return Err("the PROXY protocol header is not about TCP"),
            _ => return Err("the PROXY protocol header has an unknown command"),
        };
        let rest = usize::from(u16::from_be_bytes([*length_high, *length_low]));
        let least = match source {
            Source::Connection => 0,
            Source::V4 => 12,
            Source::V6 => 36,
        };
        match rest {
            _ if rest < least => Err("the PROXY protocol header is shorter than its addresses"),
            _ if rest > MAX_REST => Err("the PROXY protocol header is too long"),
            _ => Ok(Self { source, rest }),
        }
    }

    /// The client's address, if the header has it. What follows the addresses
    /// (type-length-value pairs) is for others.
    fn source(&self, rest: &[u8]) -> Result<Option<SocketAddr>, &'static str> {
        let short = "the PROXY protocol header is shorter than its addresses";
        match self.source {
            Source::Connection => Ok(None),
            // Source address, destination address, source port, destination port.
            Source::V4 => {
                let [a, b, c, d, _, _, _, _, port @ .., _, _] = rest.first_chunk::<12>().ok_or(short)?;
                let address = Ipv4Addr::new(*a, *b, *c, *d);
                Ok(Some((address, u16::from_be_bytes(*port)).into()))
            }
            Source::V6 => {
                let (address, rest) = rest.split_first_chunk::<16>().ok_or(short)?;
                let port = rest.get(16..18).ok_or(short)?;
                let address = Ipv6Addr::from(*address).to_canonical();
                Ok(Some((address, u16::from_be_bytes([port[0], port[1]])).into()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(version_and_command: u8, family: u8, length: u16) -> [u8; FIXED] {
        let mut bytes = [0; FIXED];
        bytes[..12].copy_from_slice(&SIGNATURE);
        bytes[12] = version_and_command;
        bytes[13] = family;
        bytes[14..].copy_from_slice(&length.to_be_bytes());
        bytes
    }

    fn source(version_and_command: u8, family: u8, rest: &[u8]) -> Result<Option<SocketAddr>, &'static str> {
        let header = Header::parse(&fixed(version_and_command, family, rest.len() as u16))?;
        assert_eq!(header.rest, rest.len());
        header.source(rest)
    }

    fn v4() -> Vec<u8> {
        [
            &[203, 0, 113, 7],
            &[192, 0, 2, 1],
            &50312_u16.to_be_bytes()[..],
            &[21, 56],
        ]
        .concat()
    }

    fn v6(address: &str) -> Vec<u8> {
        let address: Ipv6Addr = address.parse().unwrap();
        [&address.octets()[..], &[1; 16], &7_u16.to_be_bytes(), &[21, 56]].concat()
    }

    #[test]
    fn the_clients_address_is_read_and_what_follows_is_skipped() {
        let expected = Ok(Some("203.0.113.7:50312".parse().unwrap()));
        assert_eq!(source(0x21, 0x11, &v4()), expected);
        assert_eq!(
            source(0x21, 0x11, &[v4(), vec![0x20, 0xff, 0xff, 1]].concat()),
            expected
        );
        assert_eq!(
            source(0x21, 0x21, &v6("2001:db8::7")),
            Ok(Some("[2001:db8::7]:7".parse().unwrap()))
        );
        assert_eq!(
            source(0x21, 0x21, &v6("::ffff:203.0.113.7")),
            Ok(Some("203.0.113.7:7".parse().unwrap()))
        );
    }

    #[test]
    fn a_balancer_that_speaks_for_itself_or_does_not_know_keeps_its_address() {
        for (command, family, rest) in [
            (0x20, 0x00, vec![]),
            (0x20, 0x11, v4()),
            (0x20, 0xff, vec![1, 2, 3]),
            (0x21, 0x00, vec![0; 30]),
            (0x21, 0x31, vec![b'/'; 216]),
        ] {
            assert_eq!(
                source(command, family, &rest),
                Ok(None),
                "{command:#x} {family:#x}"
            );
        }
    }

    #[test]
    fn headers_that_lie_are_refused() {
        for (command, family, length) in [
            (0x11, 0x11, 12), // version 1
            (0x31, 0x11, 12), // version 3
            (0x22, 0x11, 12), // no such command
            (0x21, 0x12, 12), // UDP
            (0x21, 0x22, 36),
            (0x21, 0x41, 12), // no such family
            (0x21, 0x11, 11),
            (0x21, 0x21, 35),
            (0x21, 0x11, 4097),
            (0x20, 0x00, u16::MAX),
        ] {
            assert!(
                Header::parse(&fixed(command, family, length)).is_err(),
                "{command:#x} {family:#x} {length}"
            );
        }
        let mut wrong = fixed(0x21, 0x11, 12);
        wrong[11] = b'\r';
        assert!(Header::parse(&wrong).is_err());
        assert!(
            Header::parse(&fixed(0x21, 0x11, 12))
                .unwrap()
                .source(&[0; 11])
                .is_err()
        );
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            command: u8,
            family: u8,
            rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
        ) {
            let _ = source(command, family, &rest);
        }
    }
}
