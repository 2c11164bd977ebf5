//! What one node makes of what it sees, look by look.

use crate::cluster::{
    Event, External, Facts, Known, Seen, Settings, Twin, View, partition::Status, suspicion::State,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;

const MS: Duration = Duration::from_millis(1);

/// The view of `n0`, which looks each 100 ms at what gossip shows of others.
struct Sight {
    view: View<String>,
    start: Instant,
    ms: u32,
    others: BTreeMap<&'static str, Other>,
    external: External,
    events: Vec<Event>,
    published: BTreeMap<String, String>,
    beats: usize,
    resyncs: Vec<u64>,
    refusal: Option<String>,
}

/// A node in gossip, which beats each 200 ms and hears `n0`.
struct Other {
    life: u64,
    beats: u64,
    /// The port at which it receives gossip.
    port: u16,
    pairs: BTreeMap<String, String>,
    facts: Arc<Facts<String>>,
    is_silent: bool,
}

// === impl Other ===

impl Other {
    fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.pairs.insert(key.into(), value.into());
        self
    }

    fn at(&mut self, address: &str) -> &mut Self {
        self.set("address", address)
    }

    fn beat(&mut self) {
        self.beats += 1;
        self.set("beat", &self.beats.to_string());
    }

    fn parse(&mut self) {
        let pairs = self.pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        self.facts = Arc::new(Facts::parse(pairs, Some(&self.facts)));
    }
}

// === impl Sight ===

impl Sight {
    fn of(change: impl FnOnce(&mut Settings<String>)) -> Self {
        let mut settings = Settings { generation: 1, ..Settings::new("n0") };
        change(&mut settings);
        Self {
            view: View::new(settings, true),
            start: Instant::now(),
            ms: 0,
            others: BTreeMap::new(),
            external: External::default(),
            events: Vec::new(),
            published: BTreeMap::new(),
            beats: 0,
            resyncs: Vec::new(),
            refusal: None,
        }
    }

    /// A client, which expects whom others expect.
    fn observer() -> Self {
        Self::of(|settings| settings.observer = true)
    }

    /// Three members that hear each other, and write.
    fn three() -> Self {
        let mut sight = Self::of(|settings| settings.expect = 3);
        sight.meet("n1");
        sight.meet("n2");
        sight.run(3000);
        assert_eq!((sight.members(), sight.view.status()), ("n0,n1,n2", Status::Healthy));
        assert_eq!(sight.refusal, None);
        sight.events.clear();
        sight
    }

    /// Gossip shows a node, or another life of it.
    fn meet(&mut self, id: &'static str) -> &mut Other {
        let life = self.others.get(id).map_or(1, |other| other.life + 1);
        let port = 1000 + u16::try_from(self.others.len()).unwrap();
        let port = self.others.get(id).map_or(port, |other| other.port);
        let (pairs, facts) = (BTreeMap::new(), Arc::default());
        let mut other = Other { life, beats: 0, port, pairs, facts, is_silent: false };
        other.set("hears", "n0@1").beat();
        self.others.insert(id, other);
        self.other(id)
    }

    fn other(&mut self, id: &str) -> &mut Other {
        self.others.get_mut(id).unwrap()
    }

    fn now(&self) -> Instant {
        self.start + self.ms * MS
    }

    fn run(&mut self, ms: u32) {
        for _ in 0..ms / 100 {
            self.ms += 100;
            for other in self.others.values_mut() {
                if self.ms.is_multiple_of(200) && !other.is_silent {
                    other.beat();
                }
                other.parse();
            }
            self.look();
        }
    }

    fn look(&mut self) {
        let seen = |(id, other): (&&str, &Other)| Seen {
            id: (*id).to_owned(),
            generation: other.life,
            heartbeat: other.beats,
            gossip: (other.port > 0).then(|| ([10, 0, 0, 9], other.port).into()),
            facts: other.facts.clone(),
        };
        let (seen, now) = (self.others.iter().map(seen).collect::<Vec<_>>(), self.now());
        let outcome = self.view.look(&seen, self.external, now);
        self.events.extend(outcome.events);
        self.beats += outcome.publish.iter().filter(|(key, _)| key == "beat").count();
        self.published.extend(outcome.publish);
        if let Some(number) = outcome.resync {
            self.resyncs.push(number);
            self.view.resynced(number, true);
        }
        self.refusal = outcome.permission.refusal(now).map(|said| said.into_owned());
    }

    /// The expected members, as this node says.
    fn members(&self) -> &str {
        self.published.get("members").map_or("", String::as_str)
    }

    fn nodes(&self) -> Vec<Known<'_, String>> {
        self.view.nodes(self.now()).collect()
    }

    /// Each that it knows, and its state.
    fn states(&self) -> Vec<(String, State)> {
        self.nodes().into_iter().map(|node| (node.id.to_owned(), node.state)).collect()
    }

    fn left(&self) -> Vec<&str> {
        let left = |event: &'_ Event| matches!(event, Event::NodeLeft { .. });
        self.events.iter().filter(|event| left(event)).map(of).collect()
    }

    /// Who was replaced, and by whom.
    fn replaced(&self) -> Vec<(&str, &str)> {
        let mut replaced = Vec::new();
        for event in &self.events {
            if let Event::NodeReplaced { node, by } = event {
                replaced.push((node.as_str(), by.as_str()));
            }
        }
        replaced
    }
}

/// Whom an event is about.
fn of(event: &Event) -> &str {
    match event {
        Event::NodeJoined { node }
        | Event::NodeSuspected { node, .. }
        | Event::NodeFailed { node }
        | Event::NodeRecovered { node }
        | Event::NodeLeft { node } => node,
        other => panic!("{other:?}"),
    }
}

// === who is there ===

#[test]
fn a_node_joins_in_each_of_its_lives_and_recovers_where_it_was_down() {
    let mut sight = Sight::observer();
    let name = |node: &str| node.to_owned();
    sight.meet("n1");
    sight.run(1000);
    assert_eq!(sight.events, [Event::NodeJoined { node: name("n1") }]);
    sight.events.clear();
    sight.meet("n1");
    sight.run(1000);
    assert_eq!(sight.events, [Event::NodeJoined { node: name("n1") }], "it was not down");
    sight.other("n1").set("left", "1");
    sight.run(1000);
    sight.events.clear();
    sight.meet("n1");
    sight.run(1000);
    assert_eq!(sight.events, [Event::NodeJoined { node: name("n1") }], "it had left");
    sight.other("n1").is_silent = true;
    sight.run(5000);
    sight.events.clear();
    sight.meet("n1");
    sight.run(1000);
    assert_eq!(sight.events, [Event::NodeRecovered { node: name("n1") }], "it had failed");
}

#[test]
fn a_node_that_has_left_says_so_once_and_is_shown_for_as_long_as_gossip_names_it() {
    let mut sight = Sight::three();
    sight.other("n1").set("left", "1");
    sight.run(1000);
    assert_eq!((sight.left(), sight.members()), (vec!["n1"], "n0,n2"));
    assert_eq!(sight.states(), [("n1".into(), State::Left), ("n2".into(), State::Alive)]);
    assert!(!sight.nodes()[0].reachable);
    sight.others.remove("n1");
    sight.run(100);
    assert_eq!(sight.states(), [("n2".into(), State::Alive)]);
}

#[test]
fn a_silent_life_is_gone_with_the_later_one_that_leaves_before_it_was_heard() {
    let mut sight = Sight::three();
    sight.other("n1").is_silent = true;
    sight.run(5000);
    sight.meet("n1").set("left", "1").is_silent = true;
    sight.run(1000);
    assert_eq!((sight.left(), sight.members()), (vec!["n1"], "n0,n2"));
    assert_eq!(sight.states(), [("n2".into(), State::Alive)]);
}

#[test]
fn a_life_that_has_left_already_does_not_leave_again_with_a_later_one() {
    let mut sight = Sight::three();
    sight.other("n1").set("left", "1");
    sight.run(1000);
    sight.meet("n1").set("left", "1").is_silent = true;
    sight.run(1000);
    assert_eq!(sight.left(), ["n1"]);
}

#[test]
fn a_member_that_gossip_no_longer_names_is_still_known_and_others_are_not() {
    let mut sight = Sight::three();
    sight.others.clear();
    sight.run(5000);
    assert_eq!(sight.states(), [("n1".into(), State::Failed), ("n2".into(), State::Failed)]);
    let mut client = Sight::observer();
    client.meet("n1");
    client.run(1000);
    assert_eq!(client.states(), [("n1".into(), State::Alive)], "a member of nothing yet");
    client.others.clear();
    client.run(100);
    assert_eq!(client.states(), []);
}

#[test]
fn a_heartbeat_is_published_each_interval() {
    let mut sight = Sight::of(|_| ());
    sight.run(100);
    assert_eq!(sight.beats, 1);
    sight.run(1000);
    assert_eq!(sight.beats, 6, "each 200 ms");
}

// === what is asked ===

#[test]
fn a_server_is_found_by_its_address_while_it_has_not_left() {
    let mut sight = Sight::three();
    sight.other("n1").at("http://a:1").set("tag/role", "worker");
    sight.other("n2").at("http://b:1").set("tag/role", "clerk");
    sight.run(200);
    let role = |sight: &Sight, address: &str| {
        let tags = sight.view.tags_at(&address.to_owned());
        tags.map(|tags| tags.iter().map(|(name, value)| format!("{name}={value}")).collect())
    };
    let roles = ["http://a:1", "http://b:1", "http://c:1"].map(|address| role(&sight, address));
    let some = |role: &str| Some(vec![role.to_owned()]);
    assert_eq!(roles, [some("role=worker"), some("role=clerk"), None]);
    sight.other("n1").set("left", "1");
    sight.run(200);
    assert_eq!(role(&sight, "http://a:1"), None);
}

#[test]
fn failed_calls_to_an_address_convict_its_server_once_it_is_suspected() {
    for (address, convicted) in [("http://a:1", true), ("http://b:1", false)] {
        let mut sight = Sight::three();
        sight.other("n1").at("http://a:1");
        sight.other("n2").at("http://b:1");
        sight.run(200);
        sight.other("n1").is_silent = true;
        while sight.states()[0].1 == State::Alive {
            sight.run(100);
            for _ in 0..3 {
                sight.view.report_at(&address.to_owned(), true, sight.now());
            }
        }
        sight.run(100);
        assert_eq!(sight.states()[0].1 == State::Failed, convicted, "{address}");
        assert_eq!(sight.states()[1].1, State::Alive, "it is heard");
    }
}

#[test]
fn phi_and_the_intervals_of_a_node_are_those_of_its_heartbeats() {
    let mut sight = Sight::three();
    sight.other("n1").is_silent = true;
    sight.run(1300);
    let of = |id: &str| sight.view.phi(id, sight.now());
    let (silent, heard) = (of("n1").unwrap(), of("n2").unwrap());
    assert!(silent > 1.5 && heard < 0.1, "{silent}, {heard}");
    assert_eq!(of("n3"), None);
    let history = sight.view.history("n1").unwrap();
    assert_eq!(history[2..], [200 * MS].repeat(history.len() - 2), "after those of the estimate");
    assert!(history.len() > 10 && sight.view.history("n3").is_none());
}

#[test]
fn a_silent_node_is_not_proven_to_have_failed_until_others_are_heard_again() {
    let mut sight = Sight::three();
    sight.others.values_mut().for_each(|other| other.is_silent = true);
    sight.run(4000);
    let unproven = |sight: &Sight| sight.view.unproven().into_iter().collect::<Vec<_>>();
    assert_eq!(unproven(&sight), ["n1", "n2"], "this node may be the deaf one");
    sight.other("n2").is_silent = false;
    sight.run(1000);
    assert_eq!(unproven(&sight), ["n1"], "it has not heard for long enough");
    sight.run(2000);
    assert_eq!(unproven(&sight), [""; 0]);
}

#[test]
fn a_life_is_expected_that_is_heard_or_a_member_and_not_gone() {
    let mut sight = Sight::three();
    let seen = |id: &str, generation| Seen {
        id: id.into(),
        generation,
        heartbeat: 1,
        gossip: None,
        facts: Arc::default(),
    };
    sight.meet("n3").set("hears", "");
    sight.run(1000);
    let is_expected = |sight: &Sight, id, generation| sight.view.is_expected(&seen(id, generation));
    assert!(is_expected(&sight, "n1", 1) && is_expected(&sight, "n3", 1), "heard");
    assert!(!is_expected(&sight, "n4", 1), "unknown");
    for id in ["n1", "n3"] {
        sight.other(id).is_silent = true;
    }
    sight.run(5000);
    assert!(is_expected(&sight, "n1", 1), "a member");
    assert!(!is_expected(&sight, "n3", 1), "neither");
    sight.other("n1").set("left", "1");
    sight.run(200);
    assert!(!is_expected(&sight, "n1", 1), "gone");
}

// === who is expected ===

#[test]
fn an_observer_and_a_second_node_of_one_name_found_no_cluster() {
    let found = |mut sight: Sight| {
        sight.meet("n1");
        sight.meet("n2");
        sight.run(3000);
        (sight.view.status(), sight.members().to_owned())
    };
    assert_eq!(found(Sight::of(|settings| settings.expect = 3)).0, Status::Healthy);
    assert_eq!(found(Sight::observer()), (Status::Unknown, String::new()));
    let mut refused = Sight::of(|settings| settings.expect = 3);
    refused.external.twin = Some(Twin { address: None, is_earlier: true });
    assert_eq!(found(refused), (Status::Unknown, String::new()));
}

#[test]
fn a_life_that_others_know_to_be_gone_is_gone_where_it_was_known_and_no_other_is() {
    // Heard, and no member.
    let mut client = Sight::observer();
    client.meet("n1");
    client.meet("n2");
    client.run(1000);
    client.other("n2").set("gone", "n1@2,n9@1");
    client.run(200);
    assert_eq!(client.left(), [""; 0], "another life, and one that is not known");
    assert_eq!(client.states()[0], ("n1".into(), State::Alive));
    client.other("n2").set("gone", "n1@1");
    client.run(200);
    assert_eq!(client.left(), ["n1"]);
    assert_eq!(client.states()[0], ("n1".into(), State::Left));

    // A member, and never heard.
    let mut client = Sight::observer();
    client.meet("n2").set("members", "n2,n7");
    client.run(3000);
    assert_eq!(client.members(), "n2,n7");
    client.other("n2").set("gone", "n7@1").set("members", "n2");
    client.run(200);
    assert_eq!(client.members(), "n2");
}

#[test]
fn a_member_that_was_heard_is_taken_over_at_once_and_another_after_it_was_named_for_a_second() {
    let mut client = Sight::observer();
    client.meet("n1").set("members", "n1");
    client.run(3000);
    assert_eq!(client.members(), "n1");
    client.meet("n2");
    client.run(1000);
    client.other("n1").set("members", "n1,n2,n7");
    client.run(100);
    assert_eq!(client.members(), "n1,n2");
    client.run(900);
    assert_eq!(client.members(), "n1,n2");
    client.run(100);
    assert_eq!(client.members(), "n1,n2,n7");
    // What is named no longer, and then again, begins anew.
    client.other("n1").set("members", "n1,n2,n7,n8");
    client.run(900);
    client.other("n1").set("members", "n1,n2,n7");
    client.run(100);
    client.other("n1").set("members", "n1,n2,n7,n8");
    client.run(900);
    assert_eq!(client.members(), "n1,n2,n7");
}

#[test]
fn a_list_that_is_behind_brings_no_life_back_that_has_left_and_a_later_life_is_taken_over() {
    let mut client = Sight::observer();
    client.meet("n1");
    client.meet("n2").set("members", "n1,n2");
    client.run(3000);
    client.other("n1").set("left", "1");
    client.run(200);
    assert_eq!(client.members(), "n2");
    client.run(3000);
    assert_eq!(client.members(), "n2", "it has left");
    // The list may have been without it meanwhile.
    client.meet("n1");
    client.run(3000);
    assert_eq!(client.members(), "n1,n2");
    client.other("n1").set("left", "1");
    client.run(200);
    client.other("n2").set("members", "n1,n2,n2");
    client.run(3000);
    assert_eq!(client.members(), "n2", "it has left");
    client.meet("n1");
    client.run(3000);
    assert_eq!(client.members(), "n1,n2");
}

// === who is replaced ===

/// `n1` is a member that falls silent at 5 s, and `change` makes what else there is; then who was
/// replaced by whom.
fn replaced(change: impl Fn(&mut Sight)) -> Vec<(String, String)> {
    let mut sight = Sight::three();
    sight.other("n1").at("http://a:1");
    sight.run(2000);
    change(&mut sight);
    sight.run(5000);
    let replaced = sight.replaced().into_iter();
    replaced.map(|(node, by)| (node.to_owned(), by.to_owned())).collect()
}

fn one(node: &str, by: &str) -> Vec<(String, String)> {
    vec![(node.to_owned(), by.to_owned())]
}

#[test]
fn a_silent_node_gives_way_to_the_one_that_began_to_serve_at_its_address_after_it() {
    let silent = |sight: &mut Sight| sight.other("n1").is_silent = true;
    let after = |sight: &mut Sight| {
        silent(sight);
        sight.run(200);
        sight.meet("n3").at("http://a:1");
    };
    assert_eq!(replaced(after), one("n1", "n3"));
    assert_eq!(replaced(silent), [], "nobody");
    assert_eq!(
        replaced(|sight| {
            silent(sight);
            sight.run(200);
            sight.meet("n3").at("http://b:1");
        }),
        [],
        "elsewhere"
    );
    assert_eq!(
        replaced(|sight| {
            sight.meet("n3").at("http://a:1");
            sight.run(1000);
            silent(sight);
        }),
        [],
        "beside it"
    );
    // It is met at the look at which the other was heard last.
    assert_eq!(
        replaced(|sight| {
            sight.meet("n3").at("http://a:1");
            sight.run(200);
            silent(sight);
        }),
        [],
        "at one time"
    );
    assert_eq!(
        replaced(|sight| {
            after(sight);
            sight.meet("n4").at("http://a:1");
        }),
        [],
        "as a proxy of several"
    );
}

#[test]
fn a_node_at_the_address_of_this_one_replaces_nobody() {
    let mut sight = Sight::of(|settings| {
        (settings.expect, settings.address) = (3, Some("http://a:1".into()));
    });
    sight.meet("n1").at("http://a:1");
    sight.meet("n2");
    sight.run(3000);
    sight.other("n1").is_silent = true;
    sight.run(200);
    sight.meet("n3").at("http://a:1");
    sight.run(5000);
    assert_eq!(sight.replaced(), []);
}

#[test]
fn a_silent_node_gives_way_to_the_one_that_received_gossip_at_its_address_after_it() {
    let silent = |sight: &mut Sight, id: &str| sight.other(id).is_silent = true;
    let port = |sight: &mut Sight| sight.other("n1").port;
    let after = |sight: &mut Sight| {
        silent(sight, "n1");
        sight.run(200);
        let port = port(sight);
        sight.meet("n3").port = port;
    };
    assert_eq!(replaced(after), one("n1", "n3"));
    // Even if that is gone by now.
    let both = replaced(|sight| {
        after(sight);
        sight.run(600);
        silent(sight, "n3");
    });
    assert_eq!(both, one("n1", "n3"));
    let beside = |gap: u32| {
        replaced(|sight| {
            let port = port(sight);
            sight.meet("n3").port = port;
            sight.run(1000);
            silent(sight, "n3");
            sight.run(gap);
            silent(sight, "n1");
        })
    };
    assert_eq!(beside(1000), [], "it was heard until later");
    assert_eq!(beside(0), [], "until the same time");
    // The one that came first is heard until later.
    let older = replaced(|sight| {
        let port = port(sight);
        sight.meet("n3").port = port;
        sight.run(1000);
        silent(sight, "n3");
        sight.run(2000);
    });
    assert_eq!(older, [], "n1 was there before n3");
    // Both are met at one look, and one is silent later; and where no address is known.
    for port in [1, 0] {
        let mut sight = Sight::of(|settings| settings.expect = 3);
        sight.meet("n1").port = port;
        sight.meet("n2").port = 1;
        sight.run(3000);
        silent(&mut sight, "n1");
        sight.run(200);
        if port == 0 {
            sight.meet("n3").port = 0;
        }
        sight.run(5000);
        assert_eq!(sight.replaced(), []);
    }
}

#[test]
fn a_member_that_was_never_heard_gives_way_to_the_one_that_is_heard_at_its_address() {
    for (port, is_replaced) in [(1000, true), (1001, false)] {
        let mut client = Sight::observer();
        client.meet("n2").set("members", "n2,n7").port = 1000;
        client.meet("n7").is_silent = true;
        client.other("n7").port = port;
        client.run(3000);
        let expected: &[_] = if is_replaced { &[("n7", "n2")] } else { &[] };
        assert_eq!(client.replaced(), expected);
        assert_eq!(client.members(), if is_replaced { "n2" } else { "n2,n7" });
    }
}

// === where a number is expected ===

/// Where three are expected by their number, and `n1` and `n2` are there.
fn counted(change: impl FnOnce(&mut Settings<String>)) -> Sight {
    let mut sight = Sight::of(change);
    sight.external.expected = Some(3);
    sight.meet("n1");
    sight.meet("n2");
    sight.run(3000);
    sight
}

#[test]
fn as_many_as_live_are_expected_where_those_are_more() {
    let mut sight = counted(|_| ());
    assert_eq!(sight.view.quorum(), (3, 3));
    sight.meet("n3");
    sight.run(1000);
    assert_eq!(sight.view.quorum(), (4, 4), "this one and three others");
    let mut client = counted(|settings| settings.observer = true);
    client.external.expected = Some(2);
    client.run(100);
    assert_eq!(client.view.quorum().1, 2, "it is none of them");
    client.external.expected = Some(0);
    client.run(100);
    assert!(client.refusal.unwrap().contains("the number of nodes to expect is not known yet"));
}

#[test]
fn half_of_those_that_live_may_not_write_where_fewer_are_expected() {
    let mut sight = counted(|_| ());
    sight.meet("n3");
    sight.run(1000);
    assert_eq!(sight.refusal, None);
    for id in ["n2", "n3"] {
        sight.other(id).set("hears", "");
    }
    sight.run(3000);
    assert_eq!(sight.view.status(), Status::Minority, "two of four that live, three expected");
    assert!(sight.refusal.is_some());
}

#[test]
fn a_silent_node_is_expected_no_more_once_as_many_as_are_expected_are_there() {
    let mut sight = counted(|_| ());
    sight.other("n2").is_silent = true;
    sight.run(5000);
    assert_eq!((sight.left(), sight.members()), (vec![], "n0,n1,n2"), "two of three");
    sight.meet("n3");
    sight.run(2000);
    assert_eq!((sight.left(), sight.members()), (vec!["n2"], "n0,n1,n3"));
}

#[test]
fn a_node_that_lives_and_does_not_hear_this_one_stays_expected() {
    let mut sight = counted(|_| ());
    sight.other("n2").set("hears", "");
    sight.meet("n3");
    sight.run(5000);
    assert_eq!((sight.left(), sight.members()), (vec![], "n0,n1,n2,n3"));
    assert_eq!(sight.view.quorum(), (3, 4));
}

// === what an operator says ===

#[test]
fn a_life_is_forgotten_once_and_only_where_it_is_known_or_expected() {
    let mut client = Sight::observer();
    client.meet("n1");
    client.meet("n2").set("members", "n2,n7");
    client.run(3000);
    let mut forget = |id: &str, life| client.view.forget_life(id, life).is_some();
    assert!(!forget("n9", 1), "unknown");
    assert!(!forget("n1", 2), "another life");
    assert!(forget("n1", 1), "heard, and no member");
    assert!(!forget("n1", 1), "once");
    assert!(forget("n7", 5), "a member that was never heard, in whichever life");
    assert!(!forget("n0", 2) && forget("n0", 1), "this one");
    client.run(100);
    assert_eq!(client.members(), "n2");
}

// === writes ===

#[test]
fn both_sides_of_a_cut_say_who_may_write() {
    let mut sight = Sight::three();
    sight.other("n1").is_silent = true;
    sight.run(5000);
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let cut = Event::PartitionDetected { minority: names(&["n1"]), majority: names(&["n0", "n2"]) };
    assert!(sight.events.contains(&cut), "{:?}", sight.events);
    sight.events.clear();
    sight.other("n2").is_silent = true;
    sight.run(5000);
    let cut = Event::PartitionDetected { minority: names(&["n0"]), majority: names(&["n1", "n2"]) };
    assert!(sight.events.contains(&cut), "{:?}", sight.events);
}

#[test]
fn a_resync_counts_only_if_the_quorum_was_not_lost_since_it_began() {
    let mut sight = Sight::three();
    assert_eq!(sight.resyncs, [0]);
    sight.view.require_resync();
    sight.view.resynced(0, true);
    sight.run(100);
    assert_eq!(sight.resyncs, [0, 1], "the next one has another number");
    sight.view.require_resync();
    sight.run(100);
    assert_eq!(sight.resyncs, [0, 1, 2]);
}

#[test]
fn a_refusal_says_what_is_missing() {
    let said = |sight: &Sight| sight.refusal.clone().unwrap();
    let mut sight = Sight::of(|settings| settings.expect = 3);
    sight.run(100);
    let few = "too few nodes were heard to form a cluster: 1 of the 2 that it takes (n0)";
    assert!(said(&sight).contains(few), "{}", said(&sight));
    let mut sight = Sight::three();
    sight.other("n1").is_silent = true;
    sight.other("n2").is_silent = true;
    sight.run(5000);
    assert!(said(&sight).contains("1 of 3 nodes are reachable; missing: n1, n2"));
    sight.others.values_mut().for_each(|other| other.is_silent = false);
    sight.run(600);
    assert!(said(&sight).contains("the cluster is healing"), "{}", said(&sight));
}
