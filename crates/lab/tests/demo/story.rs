//! The live demo, and the story on its page.

use super::{Paged, demo};
use std::{net::TcpListener, time::Duration};
use tokio::time::{Instant, sleep};

#[test]
fn the_live_demo_ends_after_the_given_time_and_names_an_address_that_is_taken() {
    let (code, out, err) = demo(&["--dashboard", "127.0.0.1:0", "--seconds", "1"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.starts_with("dashboard on http://127.0.0.1:"), "{out}");
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listening.local_addr().unwrap().to_string();
    let (code, _, err) = demo(&["--dashboard", &taken]);
    assert!(code == Some(1) && err.starts_with(&format!("--dashboard {taken}: ")), "{err}");
    assert_eq!(demo(&["--seconds", "1"]).0, Some(2));
}

/// What happens in the story, and what shows it, or comes next.
const STORY: [(&str, &str); 11] = [
    ("story: server-1 fails every call", "breaker server-1: open, was closed"),
    ("breaker server-1: open, was closed", "breaker server-1: closed, was"),
    ("fault rule server-1/story: ttl=1m status=UNAVAILABLE", "fault rule server-1/story: gone"),
    ("story: server-1 fails", "story: server-2 is slow"),
    ("story: server-2 is slow", "story: server-3 loses replies"),
    ("story: server-3 loses replies", "story: more calls than the servers can do"),
    ("story: more calls than the servers can do", "story: server-3 crashes"),
    ("story: server-3 crashes", "endpoint server-3: down, was connected"),
    ("story: server-3 crashes", "node server-3: failed"),
    ("node server-3: failed", "story: server-3 is back"),
    ("story: server-3 is back", "node server-3: recovered"),
];

/// A step takes long enough for a server that is gone to be convicted.
// real clock: the demo is a process.
#[tokio::test]
#[ignore = "needs a minute"]
async fn the_live_demo_plays_its_story_and_each_fault_shows_in_the_events() {
    let demo = Paged::new(&["--each", "6"]);
    let (mut state, due) = (String::new(), Instant::now() + Duration::from_secs(170));
    let missing = loop {
        let is_shown = |(cause, effect): &&(&str, &str)| {
            state.split_once(cause).is_some_and(|(_, after)| after.contains(effect))
        };
        let missing = STORY.iter().find(|step| !is_shown(step));
        if missing.is_none() || Instant::now() > due {
            break missing;
        }
        sleep(Duration::from_millis(500)).await;
        state = demo.get("/api/state");
    };
    assert_eq!(missing, None, "{state}");
}
