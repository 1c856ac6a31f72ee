//! Address blocks: all that hold an address, by one binary search and a walk outwards.
//!
//! Blocks are nested or apart, never overlapping, so the blocks around an address are the last one that begins before
//! it, or around that one.

use std::net::IpAddr;

use ipnet::IpNet;

/// Blocks of both families.
#[derive(Debug, Default)]
pub(super) struct Nets {
    v4: Nested<u32>,
    v6: Nested<u128>,
}

#[derive(Debug, Default)]
struct Nested<T> {
    /// First addresses, ascending; of two blocks with the same one the larger stands first.
    starts: Box<[T]>,
    blocks: Box<[Block<T>]>,
}

#[derive(Debug)]
struct Block<T> {
    last: T,
    id: u32,
    /// The smallest block around it.
    parent: Option<u32>,
}

impl Nets {
    pub(super) fn new(items: impl Iterator<Item = (IpNet, u32)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (net, id) in items {
            match net {
                IpNet::V4(net) => v4.push((u32::from(net.network()), u32::from(net.broadcast()), id)),
                IpNet::V6(net) => v6.push((u128::from(net.network()), u128::from(net.broadcast()), id)),
            }
        }
        Self { v4: Nested::new(v4), v6: Nested::new(v6) }
    }

    /// Calls `found` with the numbers of all blocks that hold `ip`, the smallest first.
    pub(super) fn find(&self, ip: IpAddr, found: &mut dyn FnMut(u32)) {
        match ip {
            IpAddr::V4(ip) => self.v4.find(u32::from(ip), found),
            IpAddr::V6(ip) => self.v6.find(u128::from(ip), found),
        }
    }
}

impl<T: Copy + Ord> Nested<T> {
    /// Of `(first, last, number)`.
    fn new(mut spans: Vec<(T, T, u32)>) -> Self {
        spans.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)).then(a.2.cmp(&b.2)));
        let mut around: Vec<(u32, T)> = Vec::new();
        let mut blocks = Vec::with_capacity(spans.len());
        for ((first, last, id), number) in spans.iter().zip(0..) {
            while around.last().is_some_and(|(_, end)| end < first) {
                around.pop();
            }
            blocks.push(Block { last: *last, id: *id, parent: around.last().map(|(number, _)| *number) });
            around.push((number, *last));
        }
        Self { starts: spans.into_iter().map(|(first, ..)| first).collect(), blocks: blocks.into() }
    }

    fn find(&self, ip: T, found: &mut dyn FnMut(u32)) {
        let begun = self.starts.partition_point(|start| *start <= ip);
        let mut at = begun.checked_sub(1).and_then(|at| self.blocks.get(at));
        while let Some(block) = at {
            if ip <= block.last {
                found(block.id);
            }
            at = block.parent.and_then(|parent| self.blocks.get(usize::try_from(parent).ok()?));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_around_an_address_is_found() {
        let blocks = [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.0.0.0/16",
            "10.0.0.7/32",
            "10.1.0.0/16",
            "192.168.0.0/24",
            "255.255.255.255/32",
            "::/0",
            "fe80::/10",
            "fe80::1/128",
            "10.0.0.0/8",
        ];
        let nets: Vec<IpNet> = blocks.iter().map(|block| block.parse().unwrap()).collect();
        let index = Nets::new(nets.iter().copied().zip(0..));
        for ip in ["10.0.0.7", "10.0.0.8", "10.2.0.1", "1.1.1.1", "255.255.255.255", "192.168.0.255", "fe80::1", "::1"]
        {
            let ip: IpAddr = ip.parse().unwrap();
            let mut found = Vec::new();
            index.find(ip, &mut |id| found.push(id));
            found.sort_unstable();
            let holds = |(net, _): &(&IpNet, u32)| net.contains(&ip);
            let expected: Vec<u32> = nets.iter().zip(0..).filter(holds).map(|(_, id)| id).collect();
            assert_eq!(found, expected, "{ip}");
        }
        Nets::new(std::iter::empty()).find("::1".parse().unwrap(), &mut |_| panic!("nothing is in it"));
    }
}
