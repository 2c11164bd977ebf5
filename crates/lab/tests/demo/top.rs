//! `top`, beside the page of a live demo.

use super::{Paged, demo};
use std::{net::TcpListener, thread, time::Duration};

#[test]
fn top_prints_the_page_of_a_demo_as_text() {
    let live = Paged::new(&["--seconds", "600"]);
    let page = &live.page;
    // It ends with the demo at the latest.
    while !live.get("/api/state").contains(r#""kind":"breaker""#) {
        thread::park_timeout(Duration::from_millis(20));
    }
    for url in [page.clone(), format!("http://{page}/")] {
        let (code, out, err) = demo(&["top", "--dashboard", &url]);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        for part in ["CLIENT", "retry budget", "ENDPOINT", "server-1", "BREAKER", "EVENTS"] {
            assert!(out.contains(part), "{part}: {out}");
        }
        assert!(!out.contains('\x1b') && out.lines().all(|line| line.chars().count() <= 80));
    }
}

#[test]
fn top_says_that_nobody_listens_or_that_it_is_no_dashboard() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = listener.local_addr().unwrap().to_string();
    drop(listener);
    let (code, out, err) = demo(&["top", "--dashboard", &free]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.starts_with(&format!("--dashboard {free}: Connection refused")), "{err}");
}
