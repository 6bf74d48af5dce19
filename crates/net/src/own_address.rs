//! The address by which others know this machine.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;

/// The first IPv4 address of this machine that is not its loopback; that one when there is no other. Asked once.
pub fn own_address() -> IpAddr {
    static OWN: OnceLock<IpAddr> = OnceLock::new();
    *OWN.get_or_init(|| IpAddr::V4(first().unwrap_or(Ipv4Addr::LOCALHOST)))
}

fn first() -> Option<Ipv4Addr> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the pointer is ours to be written to; what it is given is freed below, once.
    if unsafe { libc::getifaddrs(&mut list) } != 0 {
        return None;
    }
    let (mut at, mut found) = (list, None);
    while !at.is_null() && found.is_none() {
        // SAFETY: a non-null node of the list that getifaddrs made, alive until it is freed; its address, when there is one, is
        // a sockaddr of the family it says.
        unsafe {
            let address = (*at).ifa_addr;
            if !address.is_null() && i32::from((*address).sa_family) == libc::AF_INET {
                let v4 = std::ptr::read_unaligned(address.cast::<libc::sockaddr_in>());
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                found = (!ip.is_loopback()).then_some(ip);
            }
            at = (*at).ifa_next;
        }
    }
    // SAFETY: the list is the one that getifaddrs gave, and nothing points into it any more.
    unsafe { libc::freeifaddrs(list) };
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_an_address_of_ours() {
        let own = own_address();
        assert!(std::net::UdpSocket::bind((own, 0)).is_ok(), "{own}");
    }
}
