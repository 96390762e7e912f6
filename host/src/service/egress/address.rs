//! Which addresses a stage may be connected to: from an address and how exact the grant is, to yes or no. Pure.
//!
//! A name that resolves to the host itself, to its network or to a cloud's metadata service is the classic way out of a
//! sandbox, so those addresses take a grant that says so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of place an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Public,
    Loopback,
    Private,
    LinkLocal,
    Metadata,
    /// Multicast, unspecified, documentation, reserved: nothing a deployment talks to.
    Unusable,
}

/// How exactly the grant names the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// `*.suffix`: whoever can add a name below it chooses the address.
    Below,
    /// The host's name.
    Named,
    /// The address itself.
    Literal(IpAddr),
}

/// Metadata services of clouds. Most are link-local too; Alibaba's, Oracle's and Azure's are not.
const METADATA_V4: [Ipv4Addr; 5] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// Whether a stage with such a grant may be connected to `address`.
pub fn permits(trust: Trust, address: IpAddr) -> bool {
    match kind(address) {
        Kind::Public => true,
        Kind::Loopback | Kind::Private => trust != Trust::Below,
        Kind::LinkLocal | Kind::Metadata => match trust {
            Trust::Literal(literal) => canonical(literal) == canonical(address),
            Trust::Below | Trust::Named => false,
        },
        Kind::Unusable => false,
    }
}

/// What `address` is, seen through the IPv6 addresses that stand for IPv4 ones.
pub fn kind(address: IpAddr) -> Kind {
    match canonical(address) {
        IpAddr::V4(address) => kind_v4(address),
        IpAddr::V6(address) => kind_v6(address),
    }
}

/// The IPv4 address that an IPv6 address stands for (mapped, compatible, NAT64, 6to4), else the address itself.
pub fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let segments = v6.segments();
    let v4 = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] => v4(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        _ => address,
    }
}

fn kind_v4(address: Ipv4Addr) -> Kind {
    let [first, second, third, _] = address.octets();
    match (first, second, third) {
        _ if METADATA_V4.contains(&address) => Kind::Metadata,
        (127, ..) => Kind::Loopback,
        (10, ..) | (172, 16..=31, _) | (192, 168, _) | (100, 64..=127, _) => Kind::Private,
        (169, 254, _) => Kind::LinkLocal,
        (0, ..) | (192, 0, 0 | 2) | (192, 88, 99) | (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) => {
            Kind::Unusable
        }
        (224.., ..) => Kind::Unusable,
        _ => Kind::Public,
    }
}

fn kind_v6(address: Ipv6Addr) -> Kind {
    if METADATA_V6.contains(&address) {
        return Kind::Metadata;
    }
    let segments = address.segments();
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 1] => Kind::Loopback,
        // NAT64 with a prefix of the local network: where the IPv4 address stands in it is not known here.
        [0x64, 0xff9b, 1, ..] => Kind::Private,
        [first, ..] if first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfec0 => Kind::Private,
        [first, ..] if first & 0xffc0 == 0xfe80 => Kind::LinkLocal,
        // Protocol assignments with Teredo, documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3ff0..=0x3fff, ..] => Kind::Unusable,
        [first, ..] if first & 0xe000 == 0x2000 => Kind::Public,
        _ => Kind::Unusable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kind, and whether a grant below a suffix, by name and by this address permits it.
    #[track_caller]
    fn check(address: &str, expected: Kind, below: bool, named: bool, literal: bool) {
        let address: IpAddr = address.parse().expect("an address");
        assert_eq!(kind(address), expected, "{address}");
        let permitted =
            [Trust::Below, Trust::Named, Trust::Literal(address)].map(|trust| permits(trust, address));
        assert_eq!(permitted, [below, named, literal], "{address}");
    }

    #[test]
    fn addresses() {
        for public in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
        ] {
            check(public, Kind::Public, true, true, true);
        }
        for loopback in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
        ] {
            check(loopback, Kind::Loopback, false, true, true);
        }
        for private in [
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "fc00::1",
            "fd12::1",
            "fec0::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::1",
            "64:ff9b:1::1",
        ] {
            check(private, Kind::Private, false, true, true);
        }
        for link_local in ["169.254.0.1", "fe80::1", "::ffff:169.254.1.1"] {
            check(link_local, Kind::LinkLocal, false, false, true);
        }
        for metadata in [
            "169.254.169.254",
            "169.254.170.2",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::",
        ] {
            check(metadata, Kind::Metadata, false, false, true);
        }
        for unusable in [
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.1",
            "198.18.0.1",
            "192.0.0.1",
            "192.88.99.1",
            "::",
            "ff02::1",
            "2001:db8::1",
            "3fff::1",
            "2001::1",
            "100::1",
            "5f00::1",
            "::ffff:0.0.0.0",
        ] {
            check(unusable, Kind::Unusable, false, false, false);
        }
    }

    #[test]
    fn a_literal_grant_is_for_that_address() {
        let literal = |text: &str| Trust::Literal(text.parse().expect("an address"));
        let metadata = "169.254.169.254".parse().expect("an address");
        assert!(!permits(literal("169.254.1.1"), metadata));
        assert!(permits(literal("::ffff:169.254.169.254"), metadata));
    }
}
