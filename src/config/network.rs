//! IP networks, as operators write them: `10.0.0.0/8`, `2001:db8::/32`, `192.0.2.7`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::units::Scalar;

/// A network, or one address. IPv4 addresses in their IPv6 form
/// (`::ffff:192.0.2.7`) are IPv4 addresses here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network of `prefix` bits that holds `address`. A longer prefix than
    /// the address has bits means the address alone.
    pub fn new(address: IpAddr, prefix: u8) -> Self {
        match address {
            IpAddr::V4(v4) => {
                let prefix = prefix.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                Self {
                    address: Ipv4Addr::from_bits(v4.to_bits() & mask).into(),
                    prefix,
                }
            }
            IpAddr::V6(v6) => {
                let prefix = prefix.min(128);
                if let (Some(v4), 96..) = (v6.to_ipv4_mapped(), prefix) {
                    return Self::new(v4.into(), prefix - 96);
                }
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                Self {
                    address: Ipv6Addr::from_bits(v6.to_bits() & mask).into(),
                    prefix,
                }
            }
        }
    }

    /// Its first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether the address is in this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && Self::new(address, self.prefix) == *self
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.prefix) {
            (IpAddr::V4(_), 32) | (IpAddr::V6(_), 128) => self.address.fmt(f),
            (address, prefix) => write!(f, "{address}/{prefix}"),
        }
    }
}

impl Scalar for Network {
    const FORM: &'static str = "an IP address or network (192.0.2.7, 10.0.0.0/8, 2001:db8::/32)";

    fn scan(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            // `parse` alone would take `+8`.
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
            None => most,
        };
        (prefix <= most).then(|| Self::new(address, prefix))
    }
}

/// How many leading bits of an IPv6 address count as the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Prefix(pub u8);

impl Scalar for Ipv6Prefix {
    const FORM: &'static str = "a whole number from 1 to 128";

    fn scan(text: &str) -> Option<Self> {
        let bits = text.parse().ok()?;
        (1..=128).contains(&bits).then_some(Self(bits))
    }
}

/// Where metrics are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsAddress {
    /// Nowhere.
    Off,
    /// Here; port 0 takes a free one.
    At(SocketAddr),
}

impl Scalar for MetricsAddress {
    const FORM: &'static str = "an IP address and a port (127.0.0.1:9090, [::1]:9090), or off";

    fn scan(text: &str) -> Option<Self> {
        match bool::scan(text) {
            Some(false) => Some(Self::Off),
            // "on" says not where.
            Some(true) => None,
            None => text.parse().ok().map(Self::At),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses_in_every_notation() {
        let holds =
            |network, address: &str| Network::scan(network).unwrap().contains(address.parse().unwrap());
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.0"));
        assert!(holds("10.1.2.3/8", "10.255.0.1"));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(holds("::ffff:10.0.0.0/104", "10.1.2.3"));
        assert!(holds("192.0.2.7", "192.0.2.7") && !holds("192.0.2.7", "192.0.2.8"));
        assert!(holds("2001:db8::/33", "2001:db8:7fff::1") && !holds("2001:db8::/33", "2001:db8:8000::"));
        assert!(holds("0.0.0.0/0", "255.255.255.255") && !holds("0.0.0.0/0", "::1"));
        assert!(holds("::/0", "::1") && !holds("::/0", "::ffff:1.2.3.4"));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for wrong in [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0/8",
            "localhost",
            "10.0.0.0/8/8",
            "[::1]",
            "fe80::1%eth0",
            "10.0.0.0/999999999999",
        ] {
            assert_eq!(Network::scan(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_network_is_shown_as_it_can_be_written() {
        for text in ["192.0.2.7", "10.0.0.0/8", "2001:db8::/64", "::1"] {
            assert_eq!(Network::scan(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn metrics_have_an_address_or_are_off() {
        assert_eq!(MetricsAddress::scan("off"), Some(MetricsAddress::Off));
        for address in ["127.0.0.1:9090", "[::1]:0"] {
            let at = MetricsAddress::At(address.parse().unwrap());
            assert_eq!(MetricsAddress::scan(address), Some(at));
        }
        for wrong in ["", "on", "9090", ":9090", "127.0.0.1", "localhost:9090"] {
            assert_eq!(MetricsAddress::scan(wrong), None, "{wrong}");
        }
    }
}
