//! Who has to go when one more connection comes and there is no room: nobody who floods the door can
//! push out an address that does not.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// What one host has: an IPv4 address, or 2^64 IPv6 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Origin(IpAddr);

impl Origin {
    pub(super) fn of(address: IpAddr) -> Origin {
        match address.to_canonical() {
            IpAddr::V6(v6) if !v6.is_loopback() => {
                Origin(IpAddr::V6(Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX))))
            }
            other => Origin(other),
        }
    }
}

/// A connection as the crowd knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) origin: Origin,
    /// It has not said its hello yet.
    pub(super) silent: bool,
}

/// Which of the members, who stand in the order in which they came, has to go before one more of
/// `origin` may come in. None: there is room.
pub(super) fn who_goes(
    members: &[Member],
    origin: Origin,
    in_all_max: usize,
    per_origin_max: usize,
) -> Option<usize> {
    let mut counts = HashMap::new();
    for member in members {
        *counts.entry(member.origin).or_insert(0) += 1;
    }
    let from = if counts.get(&origin).is_some_and(|count| *count >= per_origin_max) {
        origin
    } else if members.len() >= in_all_max {
        *counts.iter().max_by_key(|(_, count)| **count)?.0
    } else {
        return None;
    };
    let oldest =
        |silent| members.iter().position(|member| member.origin == from && member.silent == silent);
    oldest(true).or_else(|| oldest(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::of(text.parse().expect("an address"))
    }

    fn members(of: &[(&str, bool)]) -> Vec<Member> {
        of.iter().map(|(from, silent)| Member { origin: origin(from), silent: *silent }).collect()
    }

    #[test]
    fn nobody_goes_while_there_is_room() {
        let two = members(&[("192.0.2.1", true), ("192.0.2.1", true)]);
        assert_eq!(who_goes(&two, origin("192.0.2.1"), 3, 3), None);
    }

    #[test]
    fn the_longest_silent_one_of_the_busiest_address_makes_room() {
        let all = members(&[
            ("192.0.2.9", true),
            ("192.0.2.1", false),
            ("192.0.2.1", true),
            ("192.0.2.1", true),
        ]);
        assert_eq!(who_goes(&all, origin("192.0.2.7"), 4, 4), Some(2));
        // Those who have said hello go last.
        let greeted = members(&[("192.0.2.9", true), ("192.0.2.1", false), ("192.0.2.1", false)]);
        assert_eq!(who_goes(&greeted, origin("192.0.2.7"), 3, 4), Some(1));
    }

    #[test]
    fn an_address_that_has_its_share_makes_room_itself() {
        let all = members(&[("192.0.2.9", true), ("192.0.2.1", true), ("192.0.2.1", true)]);
        assert_eq!(who_goes(&all, origin("192.0.2.1"), 100, 2), Some(1));
        assert_eq!(who_goes(&all, origin("192.0.2.9"), 100, 2), None);
    }

    #[test]
    fn one_host_of_ipv6_is_one_origin_and_mapped_ipv4_is_ipv4() {
        assert_eq!(origin("2001:db8::1"), origin("2001:db8::ffff:2"));
        assert_ne!(origin("2001:db8::1"), origin("2001:db8:0:1::1"));
        assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
        assert_ne!(origin("::1"), origin("::2"));
    }
}
