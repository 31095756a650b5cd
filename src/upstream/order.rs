//! In which order the addresses of a name are tried.

use std::net::SocketAddr;

/// The order of one attempt to connect. IPv6 and IPv4 take turns (RFC 8305, section 4), beginning
/// with what the resolver prefers; within each family a later `turn` begins with another address,
/// so that all of them get their share. Those that are `avoided` come last: better than nobody.
pub(super) fn order(
    addresses: &[SocketAddr],
    turn: usize,
    avoided: impl Fn(&SocketAddr) -> bool,
) -> Vec<SocketAddr> {
    let (avoided, good): (Vec<_>, Vec<_>) = addresses.iter().partition(|it| avoided(it));
    let prefers_ipv6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let mut order = interleaved(good, turn, prefers_ipv6);
    order.extend(interleaved(avoided, turn, prefers_ipv6));
    order
}

fn interleaved(addresses: Vec<SocketAddr>, turn: usize, prefers_ipv6: bool) -> Vec<SocketAddr> {
    let (mut first, mut second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|it| it.is_ipv6() == prefers_ipv6);
    for family in [&mut first, &mut second] {
        let by = turn.checked_rem(family.len()).unwrap_or_default();
        family.rotate_left(by);
    }
    let mut order = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let before = order.len();
        order.extend(first.next());
        order.extend(second.next());
        if order.len() == before {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// IPv6 for upper case, IPv4 for lower case.
    fn address(letter: char) -> SocketAddr {
        let number = letter as u8;
        if letter.is_uppercase() {
            format!("[2001:db8::{number}]:443").parse().unwrap()
        } else {
            format!("192.0.2.{number}:443").parse().unwrap()
        }
    }

    #[track_caller]
    fn check(addresses: &str, turn: usize, avoided: &str, expected: &str) {
        let list = |letters: &str| letters.chars().map(address).collect::<Vec<_>>();
        let avoided = list(avoided);

        let order = order(&list(addresses), turn, |it| avoided.contains(it));

        assert_eq!(order, list(expected), "{addresses} {turn} {avoided:?}");
    }

    #[test]
    fn families_take_turns_and_so_do_addresses() {
        check("", 7, "", "");
        check("a", 7, "", "a");
        check("abc", 0, "", "abc");
        check("abc", 1, "", "bca");
        check("abc", 5, "", "cab");
        check("ABCab", 0, "", "AaBbC");
        check("ABCab", 1, "", "BbCaA");
        // What the resolver prefers comes first.
        check("abA", 0, "", "aAb");
    }

    #[test]
    fn what_is_avoided_comes_last_and_the_others_share_its_part() {
        check("abc", 0, "a", "bca");
        check("abc", 1, "a", "cba");
        check("abc", 2, "a", "bca");
        check("ABab", 0, "AB", "abAB");
        check("ab", 0, "ab", "ab");
    }
}
