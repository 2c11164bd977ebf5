//! The page of the demo, used by keyboard in a headless browser.

mod devtools;

use devtools::Page;
use outside::{program, within};
use std::{
    env, fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

/// A demo with a page, which is killed when it is dropped.
struct Demo {
    process: Child,
    /// Where the page is.
    page: String,
}

/// Reads the page: the tile of that kind and name, one of its numbers, and its state.
const READ: &str = "
    window.tile = (kind, name) => {
        const section = [...document.querySelectorAll('.kind')]
            .find((section) => section.querySelector('h2').firstChild.data === kind);
        return [...section?.querySelectorAll('.tile') ?? []]
            .find((tile) => tile.querySelector('h3').textContent === name);
    };
    window.number = (kind, name, label) => {
        const terms = [...tile(kind, name)?.querySelectorAll('dt') ?? []];
        const term = terms.find((term) => term.textContent === label);
        return parseFloat(term?.nextSibling.textContent);
    };
    window.states = (kind) => [...document.querySelectorAll('.kind')]
        .filter((section) => section.querySelector('h2').firstChild.data === kind)
        .flatMap((section) => [...section.querySelectorAll('.state')])
        .map((state) => state.textContent);
    true
";

/// At both widths and in both themes nothing is wider than the window; with
/// `CINCHONA_SCREENSHOTS` set, what it looks like goes to `target/screenshots`.
fn fits(page: &mut Page) {
    let is_kept = env::var_os("CINCHONA_SCREENSHOTS").is_some();
    if is_kept {
        // There is more to see when the rule has been in force for a while.
        page.wait_for("/set [1-9][0-9] s ago/.test(document.querySelector('.counts').textContent)");
    }
    for width in [400, 1600] {
        for theme in ["light", "dark"] {
            page.show(width, theme);
            let wide = page.evaluate("document.documentElement.scrollWidth");
            assert!(wide.as_u64().unwrap() <= width.into(), "{wide} at {width}");
            if is_kept {
                let dir = within("target/screenshots");
                fs::create_dir_all(&dir).unwrap();
                page.screenshot(&dir.join(format!("{width}-{theme}.png")));
            }
        }
    }
}

impl Demo {
    fn start() -> Self {
        let mut demo = Command::new(program("calculator-demo"));
        demo.args(["--dashboard", "127.0.0.1:0", "--no-story"]).stdout(Stdio::piped());
        let mut process = demo.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let page = line.trim().strip_prefix("dashboard on ").unwrap().to_owned();
        Self { process, page }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

#[test]
#[ignore = "needs chromium"]
fn a_fault_is_set_by_keyboard_is_seen_to_strike_and_is_seen_to_end() {
    let demo = Demo::start();
    let mut page = Page::open(&demo.page);
    page.wait_for("document.getElementById('connection')?.textContent === 'live'");
    page.evaluate(READ);
    page.wait_for("states('breaker').length === 3");
    page.wait_for("states('breaker').every((state) => state === 'closed')");
    page.wait_for("document.querySelectorAll('#nodes li').length === 3");
    // At half of its tokens nothing is tried again any more.
    page.wait_for("number('client', 'retry budget', 'throttle') > 75");
    let retries = page.evaluate("number('client', 'attempts', 'retries')").as_f64().unwrap();

    page.tab_to("id");
    page.write("down");
    page.tab_to("rule");
    page.write("rate=0.8 status=UNAVAILABLE ttl=5m");
    page.press("Enter");
    page.wait_for("document.querySelector('#rules b')?.textContent === 'down'");
    page.wait_for(&format!("number('client', 'attempts', 'retries') > {retries} + 20"));
    page.wait_for("number('client', 'calls', 'failed') > 0");
    page.wait_for("states('breaker').some((state) => state.startsWith('open, probe in '))");
    page.wait_for("document.getElementById('events').textContent.includes(': open, was ')");
    fits(&mut page);

    page.tab_to("clear");
    page.press("Enter");
    page.wait_for("!document.getElementById('no-rules').hidden");
    page.wait_for("states('breaker').every((state) => state === 'closed')");
    page.wait_for("number('client', 'calls', 'failed') === 0");
    page.wait_for(
        "document.getElementById('events').textContent.includes('fault rule down: gone')",
    );
    assert!(page.errors.is_empty(), "{:#?}", page.errors);
}
