//! Nodes that are expected by their number, or share an address, as pods do.

use super::model::{Net, settings};
use crate::cluster::Settings;

// catalogue: S-C7
#[test]
fn of_seven_that_are_expected_by_number_every_split_leaves_at_most_one_writable_side() {
    for mask in 0..1_usize << 6 {
        let (left, right): (Vec<_>, Vec<_>) = (0..7).partition(|i| (mask >> i) & 1 == 1);
        let mut net = Net::of(0, mask as u64, |_| {});
        for n in 0..7 {
            net.add(settings(n), (0..7).filter(|seed| *seed != n).collect());
            net.nodes[n].external.expected = Some(7);
        }
        net.run(4000);
        assert_eq!(net.writable().len(), 7);
        net.cut(&left, &right);
        net.run(2400);
        let winner = if left.len() > right.len() { &left } else { &right };
        for _ in 0..3 {
            net.run(400);
            assert_eq!(net.writable(), *winner, "{left:?} | {right:?}");
        }
        net.cuts.clear();
        net.run(4000);
        assert_eq!(net.writable().len(), 7, "{left:?} | {right:?}");
    }
}

// catalogue: S-C7
#[test]
fn an_address_that_several_share_replaces_nobody_and_a_minority_does_not_grow_by_it() {
    let shared =
        |settings: &mut Settings<String>| settings.address = Some("http://orders:50051".into());
    let mut net = Net::of(5, 5, shared);
    net.cut(&[0, 1], &[2, 3, 4]);
    net.run(4000);
    let mut another = settings(5);
    shared(&mut another);
    net.add(another, vec![0, 1]);
    net.cut(&[5], &[2, 3, 4]);
    net.run(10_000);
    assert_eq!(net.writable(), [2, 3, 4]);
    assert_eq!(net.nodes[0].view.quorum(), (2, 5));
}
