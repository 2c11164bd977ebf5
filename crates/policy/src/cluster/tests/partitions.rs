//! Cuts: never two writable sides, and always one where there is a majority.

use super::model::{Net, settings};
use crate::cluster::{
    Event,
    partition::{Status, Strategy},
};

fn ids(numbers: &[usize]) -> Vec<String> {
    numbers.iter().map(|n| format!("n{n}")).collect()
}

#[test]
fn every_split_in_two_leaves_one_writable_side_and_heals() {
    for n in 2..=7_usize {
        for mask in 1..(1_usize << n) - 1 {
            // Each split once; the seed makes each run another.
            let (left, right): (Vec<_>, Vec<_>) = (0..n).partition(|i| (mask >> i) & 1 == 1);
            if left[0] != 0 {
                continue;
            }
            let mut net = Net::of(n, mask as u64, |_| {});
            assert_eq!(net.writable().len(), n, "{left:?} | {right:?}");
            net.cut(&left, &right);
            // The time in which both sides do not know of the cut yet.
            net.run(1500);
            let winner = if left.len() * 2 >= n { &left } else { &right };
            for _ in 0..10 {
                net.run(400);
                assert_eq!(net.writable(), *winner, "{left:?} | {right:?}");
            }
            net.cuts.clear();
            net.run(4000);
            assert_eq!(net.writable().len(), n, "{left:?} | {right:?}");
        }
    }
}

#[test]
fn both_sides_report_a_cut_within_three_seconds_and_write_again_three_after_it_heals() {
    for seed in 0..20 {
        let mut net = Net::of(5, seed, |_| {});
        net.forget_events();
        net.cut(&[0, 1], &[2, 3, 4]);
        let at = net.ms;
        net.run(4000);
        for n in 0..5 {
            let is_it = |event: &Event| {
                let (minority, majority) = (ids(&[0, 1]), ids(&[2, 3, 4]));
                *event == Event::PartitionDetected { minority, majority }
            };
            let when = net.when(n, is_it);
            assert!(when.len() == 1 && when[0] - at <= 3000, "{when:?} {:?}", net.nodes[n].events);
        }
        assert_eq!(net.nodes[0].view.status(), Status::Minority);
        assert_eq!(net.nodes[2].view.status(), Status::Majority);
        assert_eq!(net.nodes[0].view.quorum(), (2, 5));
        net.cuts.clear();
        net.run(3000);
        assert_eq!(net.writable(), [0, 1, 2, 3, 4], "seed {seed}");
        for n in 0..5 {
            assert_eq!(net.when(n, |event| *event == Event::PartitionHealed).len(), 1);
        }
    }
}

#[test]
fn a_node_that_hears_all_but_is_not_heard_refuses_writes() {
    for deaf in [false, true] {
        let mut net = Net::of(5, 1, |_| {});
        for n in 1..5 {
            net.cuts.insert(if deaf { (n, 0) } else { (0, n) });
        }
        net.run(4000);
        assert_eq!(net.writable(), [1, 2, 3, 4], "deaf: {deaf}");
        assert_eq!(net.nodes[0].view.status(), Status::Minority);
    }
}

#[test]
fn a_single_cut_link_is_gossiped_around() {
    let mut net = Net::of(5, 2, |_| {});
    net.forget_events();
    net.cut(&[0], &[1]);
    net.run(60_000);
    assert_eq!(net.writable(), [0, 1, 2, 3, 4]);
    assert!(net.nodes.iter().all(|node| node.events.is_empty()));
}

#[test]
fn writes_wait_for_the_resync_and_the_resync_of_a_lost_quorum_does_not_count() {
    let mut net = Net::of(3, 3, |_| {});
    net.nodes[0].resyncs_at_once = false;
    let before = net.nodes[0].resyncs.len();
    net.cut(&[0], &[1, 2]);
    net.run(4000);
    net.cuts.clear();
    net.run(4000);
    assert_eq!(net.nodes[0].resyncs.len(), before + 1);
    assert_eq!(net.nodes[0].refusal.as_deref(), Some("the resync has not finished"));
    net.cut(&[0], &[1, 2]);
    net.run(4000);
    let first = net.nodes[0].resyncs[before];
    net.nodes[0].view.resynced(first, true);
    net.cuts.clear();
    net.run(4000);
    assert!(net.nodes[0].refusal.is_some(), "that was another quorum");
    let second = net.nodes[0].resyncs[before + 1];
    net.nodes[0].view.resynced(second, false);
    net.run(1000);
    assert_eq!(net.nodes[0].resyncs.len(), before + 3, "it has failed, and begins again");
    net.nodes[0].view.resynced(second, true);
    net.run(1000);
    assert_eq!(net.writable(), [0, 1, 2]);
}

#[test]
fn members_do_not_become_fewer_by_crashes_one_after_another() {
    let mut net = Net::of(5, 4, |_| {});
    for n in [4, 3] {
        net.nodes[n].is_up = false;
        net.run(60_000);
        assert_eq!(net.writable().len(), n);
    }
    net.nodes[2].is_up = false;
    net.run(60_000);
    assert_eq!(net.writable(), [0_usize; 0]);
    assert_eq!(net.nodes[0].view.quorum(), (2, 5));
    let (event, _) = net.nodes[0].view.forget("n4").unwrap();
    assert_eq!(event, Event::NodeLeft { node: "n4".into() });
    net.nodes[0].view.forget("n3").unwrap();
    net.run(6000);
    assert_eq!(net.nodes[1].view.quorum(), (2, 3), "the decision has spread");
    assert_eq!(net.writable(), [0, 1]);
    net.restart(4);
    net.run(6000);
    assert_eq!(net.nodes[0].view.quorum(), (3, 4), "it joins again in a later life");
    assert!(net.nodes[0].view.forget("n9").is_none());
}

#[test]
fn a_node_that_leaves_is_expected_no_more() {
    let mut net = Net::of(3, 5, |_| {});
    net.forget_events();
    net.nodes[2].set([("left".to_owned(), "1".to_owned())]);
    net.run(1000);
    net.nodes[2].is_up = false;
    net.run(20_000);
    for n in 0..2 {
        let seen: Vec<_> = net.nodes[n].events.iter().map(|(_, event)| event).collect();
        assert_eq!(seen, [&Event::NodeLeft { node: "n2".into() }]);
        assert_eq!(net.nodes[n].view.quorum(), (2, 2));
    }
    net.forget_events();
    net.restart(2);
    net.run(6000);
    for n in 0..2 {
        let seen: Vec<_> = net.nodes[n].events.iter().map(|(_, event)| event).collect();
        assert_eq!(seen, [&Event::NodeJoined { node: "n2".into() }], "in another life");
        assert_eq!(net.nodes[n].view.quorum(), (3, 3));
    }
}

#[test]
fn a_short_loss_of_the_quorum_starts_a_resync_though_it_is_no_event() {
    let mut net = Net::of(3, 11, |_| {});
    net.forget_events();
    let before = net.nodes[0].resyncs.len();
    net.cut(&[0], &[1, 2]);
    net.run(1700);
    assert_eq!(net.writable(), [1, 2]);
    net.cuts.clear();
    net.run(2000);
    assert_eq!(net.nodes[0].resyncs.len(), before + 1);
    assert!(net.when(0, |event| matches!(event, Event::PartitionDetected { .. })).is_empty());
    assert_eq!(net.writable(), [0, 1, 2]);
}

// catalogue: S-C7
#[test]
fn of_two_nodes_with_one_id_the_later_refuses_writes_and_both_report_it() {
    for is_earlier in [false, true] {
        let mut net = Net::of(3, 12, |_| {});
        net.forget_events();
        net.nodes[0].meets_itself(is_earlier);
        net.run(2000);
        let event = Event::DuplicateId { address: None, refused: is_earlier };
        assert_eq!(net.when(0, |said| *said == event).len(), 1, "{:?}", net.nodes[0].events);
        assert_eq!(net.writable().contains(&0), !is_earlier);
        let said = net.nodes[0].refusal.clone().unwrap_or_default();
        assert_eq!(said.contains("has the id n0 and lives: this one is refused"), is_earlier);
    }
}

#[test]
fn a_cluster_below_its_quorum_at_the_start_takes_no_writes() {
    let mut net = Net::empty(6);
    for n in 0..3 {
        let mut settings = settings(n);
        settings.expect = 5;
        net.add(settings, (0..5).filter(|seed| *seed != n && *seed < 3).collect());
    }
    net.nodes[2].is_up = false;
    net.run(20_000);
    assert_eq!(net.writable(), [0_usize; 0]);
    assert_eq!(net.nodes[0].view.status(), Status::Unknown);
    net.nodes[2].is_up = true;
    net.run(4000);
    assert_eq!(net.writable(), [0, 1, 2]);
}

#[test]
fn a_node_that_joins_a_minority_does_not_make_it_a_majority() {
    let mut net = Net::of(5, 8, |_| {});
    net.cut(&[0, 1], &[2, 3, 4]);
    net.run(4000);
    for n in 5..9 {
        net.add(settings(n), vec![0, 1]);
        net.cut(&[n], &[2, 3, 4]);
    }
    net.run(10_000);
    assert_eq!(net.writable(), [2, 3, 4]);
    net.cuts.clear();
    net.run(10_000);
    assert_eq!(net.writable().len(), 9);
    assert_eq!(net.nodes[2].view.quorum(), (9, 9));
}

#[test]
fn a_designated_leader_decides_which_side_writes() {
    let mut net = Net::of(5, 9, |settings| settings.strategy = Strategy::Leader("n1".into()));
    net.cut(&[0, 1], &[2, 3, 4]);
    net.run(4000);
    assert_eq!(net.writable(), [0, 1]);
    net.nodes[1].is_up = false;
    net.run(4000);
    assert_eq!(net.writable(), [0_usize; 0]);
}

#[test]
fn changed_tags_are_reported_once() {
    let mut net = Net::of(3, 10, |_| {});
    net.forget_events();
    net.nodes[2].set([("tag/capacity".to_owned(), "64".to_owned())]);
    net.run(2000);
    for n in 0..2 {
        let seen: Vec<_> = net.nodes[n].events.iter().map(|(_, event)| event.clone()).collect();
        let tags = [("capacity".to_owned(), "64".to_owned())].into();
        assert_eq!(seen, [Event::TagsUpdated { node: "n2".into(), tags }]);
    }
}

#[test]
fn an_observer_sees_all_and_counts_for_nothing() {
    let mut net = Net::of(4, 3, |settings| {
        settings.expect = 3;
        settings.observer = settings.node_id == "n3";
    });
    let names = |n: usize, net: &Net| -> Vec<_> {
        net.nodes[n].view.nodes(net.now()).map(|node| node.id.to_owned()).collect()
    };
    assert_eq!((names(0, &net), names(3, &net)), (ids(&[1, 2]), ids(&[0, 1, 2])));
    assert!(net.nodes[3].view.nodes(net.now()).all(|node| node.reachable));
    assert_eq!(net.nodes[0].view.quorum(), (3, 3));
    assert_eq!(net.writable(), [0, 1, 2], "it takes no writes itself");
    let is_about_it = |event: &Event| format!("{event:?}").contains("n3");
    net.nodes[3].is_up = false;
    net.run(5000);
    assert!((0..3).all(|n| net.when(n, is_about_it).is_empty()), "no node lists it");
    // One of three is no majority, however many observers there are.
    net.restart(3);
    net.run(3000);
    net.nodes[1].is_up = false;
    net.nodes[2].is_up = false;
    net.run(5000);
    assert_eq!(net.writable(), Vec::<usize>::new());
}
