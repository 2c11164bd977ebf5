//! The text of a page, 80 columns wide.

use serde_json::Value;
use std::fmt::{self, Write};

const WIDTH: usize = 80;
/// How many events are shown.
const EVENTS: usize = 10;
/// From no weight to the most.
const SHADES: [char; 5] = [' ', '░', '▒', '▓', '█'];

/// The page, and whether it may have colours.
struct Page {
    text: String,
    has_colours: bool,
}

/// What `/api/state` says, as lines.
pub(super) fn page(state: &Value, has_colours: bool) -> String {
    let mut page = Page { text: String::new(), has_colours };
    let tiles = all(state, "tiles");
    let count = |health: &str| tiles.iter().filter(|tile| tile["health"] == health).count();
    let (good, warn, bad) = (count("good"), count("warn"), count("bad"));
    page.line(format_args!("{good} OK · {warn} to watch · {bad} failing"));
    let mut kind = None;
    for tile in tiles {
        let own = text(tile, "kind");
        if kind.as_deref() != Some(&*own) {
            page.heading(&own);
            kind = Some(own);
        }
        page.tile(tile);
    }
    page.map(&state["map"]);
    page.rules(&state["faults"]);
    page.events(state);
    page.text
}

// === impl Page ===

impl Page {
    /// A line, cut where the page ends.
    fn line(&mut self, line: fmt::Arguments<'_>) {
        let line = line.to_string();
        self.text.extend(line.trim_end().chars().take(WIDTH));
        self.text.push('\n');
    }

    fn heading(&mut self, heading: &str) {
        self.line(format_args!(""));
        let heading = heading.to_uppercase();
        self.coloured("1", &heading);
        self.text.push('\n');
    }

    /// In colours that no health has.
    fn coloured(&mut self, code: &str, text: &str) {
        let text: String = text.chars().take(WIDTH).collect();
        _ = match self.has_colours {
            true => write!(self.text, "\x1b[{code}m{text}\x1b[0m"),
            false => write!(self.text, "{text}"),
        };
    }

    /// A state: a word, in its colour.
    fn badge(&mut self, health: &Value) {
        let (word, code) = match health.as_str() {
            Some("good") => ("OK  ", "32"),
            Some("warn") => ("WARN", "33"),
            _ => ("FAIL", "31"),
        };
        self.coloured(code, word);
        self.text.push_str("  ");
    }

    fn tile(&mut self, tile: &Value) {
        self.badge(&tile["health"]);
        let (name, state, of) = (text(tile, "name"), text(tile, "state"), text(tile, "spark_of"));
        let mut now = match of.is_empty() {
            true => String::new(),
            false => format!("{} {of}", number(&tile["spark"])),
        };
        if let Some(share) = tile["share"].as_f64() {
            _ = write!(now, ", {:.0} % of the traffic", 100.0 * share);
        }
        let rest = WIDTH - 6;
        let left = format!("{name}  {state}");
        let room = rest.saturating_sub(now.chars().count() + 1);
        let left: String = left.chars().take(room).collect();
        let line = format!("{left:<room$} {now}");
        self.text.push_str(line.trim_end());
        self.text.push('\n');
        if let Some(full) = tile["gauge"].as_f64() {
            let filled = (full.clamp(0.0, 1.0) * 30.0).round() as usize;
            let (full_part, empty) = ("█".repeat(filled), "░".repeat(30 - filled));
            self.line(format_args!("      {full_part}{empty} {:.0} %", 100.0 * full));
        }
        let numbers = all(tile, "numbers").iter().map(|label| {
            let [name, value, unit] = [0, 1, 2].map(|place| &label[place]);
            let unit = unit.as_str().unwrap_or_default();
            let space = if unit.is_empty() { "" } else { " " };
            format!("{} {}{space}{unit}", clean(name), number(value))
        });
        self.wrapped(numbers);
        if !all(tile, "strip").is_empty() {
            let cell = |cell: &Value| format!("{}: {}", clean(&cell[0]), number(&cell[1]));
            let of = [format!("{}:", text(tile, "strip_of"))];
            self.wrapped(of.into_iter().chain(all(tile, "strip").iter().map(cell)));
        }
        self.heat(tile);
    }

    fn heat(&mut self, tile: &Value) {
        let rows = all(tile, "heat");
        if rows.is_empty() {
            return;
        }
        self.line(format_args!("      {}:", text(tile, "heat_of")));
        let weight = |cell: &Value| cell.as_f64().unwrap_or(0.0);
        let cells = |row: &Value| row[1].as_array().cloned().unwrap_or_default();
        let most = rows.iter().flat_map(cells).map(|cell| weight(&cell)).fold(1e-9, f64::max);
        for row in rows.iter().rev() {
            let shade = |cell: Value| {
                let share = (weight(&cell) / most).max(0.0).sqrt();
                SHADES[(share * (SHADES.len() - 1) as f64).ceil() as usize % SHADES.len()]
            };
            let drawn: String = cells(row).into_iter().map(shade).collect();
            self.line(format_args!("      {:>7} {drawn}", clean(&row[0])));
        }
    }

    /// What does not fit on a line goes on the next.
    fn wrapped(&mut self, words: impl Iterator<Item = String>) {
        let mut line = String::new();
        for word in words {
            let is_first = line.is_empty();
            if !is_first && 6 + line.chars().count() + 3 + word.chars().count() > WIDTH {
                self.line(format_args!("      {line}"));
                line.clear();
            }
            let gap = if line.is_empty() { "" } else { "   " };
            _ = write!(line, "{gap}{word}");
        }
        if !line.is_empty() {
            self.line(format_args!("      {line}"));
        }
    }

    fn map(&mut self, map: &Value) {
        if all(map, "nodes").is_empty() {
            return;
        }
        self.heading("cluster");
        for node in all(map, "nodes") {
            self.badge(&node["health"]);
            let (name, state) = (text(node, "name"), text(node, "state"));
            let phi = match node["phi"].as_f64() {
                // A longer one shows nothing more.
                Some(phi) if phi > 300.0 => "> 300".to_owned(),
                _ => number(&node["phi"]),
            };
            let line = format!("{name}  {state}  phi {phi}");
            self.text.extend(line.chars().take(WIDTH - 6));
            self.text.push('\n');
        }
        for link in all(map, "links").iter().filter(|link| link["health"] == "bad") {
            let (from, to) = (text(link, "from"), text(link, "to"));
            self.line(format_args!("      {from} does not reach {to}"));
        }
    }

    fn rules(&mut self, faults: &Value) {
        if all(faults, "rules").is_empty() {
            return;
        }
        self.heading("fault rules");
        for rule in all(faults, "rules") {
            let (injected, matched) = (number(&rule["injected"]), number(&rule["matched"]));
            self.line(format_args!("{}  {injected} of {matched}", text(rule, "id")));
            self.line(format_args!("      {}", text(rule, "rule")));
        }
    }

    /// The latest first.
    fn events(&mut self, state: &Value) {
        self.heading("events");
        let now = state["now"].as_f64().unwrap_or(0.0);
        for event in all(state, "events").iter().rev().take(EVENTS) {
            let ago = (now - event["at"].as_f64().unwrap_or(0.0)).max(0.0);
            self.line(format_args!("{ago:>5.0} s ago  {}", text(event, "text")));
        }
    }
}

fn all<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value, field: &str) -> String {
    clean(&value[field])
}

/// Without what a terminal would obey: names are not trusted.
fn clean(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    text.chars().filter(|c| !c.is_control()).collect()
}

fn number(value: &Value) -> String {
    match value.as_f64() {
        None => "–".to_owned(),
        Some(value) if value.abs() >= 1e6 => format!("{:.2}M", value / 1e6),
        Some(value) if value.abs() >= 1e4 => format!("{:.1}k", value / 1e3),
        Some(value) if value.fract() == 0.0 || value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn state() -> Value {
        json!({
            "now": 12.0,
            "tiles": [
                { "kind": "client", "name": "calls\u{1b}[31m", "state": "x".repeat(200),
                  "health": "bad", "numbers": [["failed", 50.0, "%"], ["p99", null, "ms"]],
                  "spark": 150.0, "spark_of": "calls/s", "share": 0.25, "gauge": 0.5,
                  "strip": [["1", 9.0], ["2", 1.0]], "strip_of": "attempts per call",
                  "heat": [["1 ms", [0.0, 1.0]], ["more", [4.0, 0.0]]], "heat_of": "latency" },
                { "kind": "breaker", "name": "a", "state": "closed", "health": "good",
                  "numbers": [], "spark": 0.0, "spark_of": "", "strip": [] },
            ],
            "map": { "nodes": [{ "name": "a", "state": "alive", "health": "good", "phi": 0.25 }],
                     "links": [{ "from": "a", "to": "b", "health": "bad" }] },
            "faults": { "rules": [{ "id": "x", "rule": "hang", "matched": 4, "injected": 2 }] },
            "events": [{ "at": 2.0, "text": "first" }, { "at": 11.0, "text": "last" }],
        })
    }

    #[test]
    fn everything_is_there_and_no_line_is_longer_than_80_columns() {
        let plain = page(&state(), false);
        for part in [
            "1 OK · 0 to watch · 1 failing",
            "\nCLIENT\nFAIL  calls[31m  xxx",
            "150 calls/s, 25 % of the traffic\n",
            "███████████████░░░░░░░░░░░░░░░ 50 %",
            "failed 50 %   p99 – ms",
            "attempts per call:   1: 9   2: 1",
            "   more █\n         1 ms  ▒\n",
            "\nOK    a  alive  phi 0.25\n",
            "a does not reach b",
            "x  2 of 4\n      hang",
            "    1 s ago  last\n   10 s ago  first\n",
        ] {
            assert!(plain.contains(part), "{part}:\n{plain}");
        }
        assert!(plain.lines().all(|line| line.chars().count() <= WIDTH), "{plain}");
        assert!(!plain.contains('\x1b'), "neither colours nor what a name would do");
    }

    #[test]
    fn colours_change_nothing_but_the_colour() {
        let mut bare = page(&state(), true);
        for code in ["1", "31", "32", "33", "0"] {
            bare = bare.replace(&format!("\x1b[{code}m"), "");
        }
        assert_eq!(bare, page(&state(), false));
    }
}
