//! What became of all scripts with all clients, as tables.

use crate::{
    Entry,
    run::{Cell, Column, Verdict},
};
use serde_json::{Value as Json, json};
use std::fmt::Write;

/// What became of all scripts with all clients.
#[derive(Debug)]
pub(crate) struct Report {
    entries: Vec<Entry>,
    columns: Vec<Column>,
    absent: Vec<(String, String)>,
    is_quick: bool,
    date: String,
}

/// Whose table it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    All,
    /// Where somebody is wrong.
    Different,
}

const ABOUT: &str = "\
*right*: client and server saw what the script says. *wrong*: they did not; the cell has what was
measured. *cannot*: the client has no such feature, so it was not asked. Codes are those of the
calls in their order; *att.* are requests that arrived.
";

/// The date in UTC, by the days since 1970.
#[expect(clippy::disallowed_types, reason = "a report has the date of the wall clock")]
fn today() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let days = now.map_or(0, |time| time.as_secs() / 86_400) as i64 + 719_468;
    // http://howardhinnant.github.io/date_algorithms.html#civil_from_days
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

// === impl Report ===

impl Report {
    pub(crate) fn new(entries: &[Entry], is_quick: bool) -> Self {
        let (columns, absent) = (Vec::new(), Vec::new());
        Self { entries: entries.to_vec(), columns, absent, is_quick, date: today() }
    }

    pub(crate) fn add(&mut self, column: Column) {
        self.columns.push(column);
    }

    pub(crate) fn add_absent(&mut self, name: &str, why: &str) {
        self.absent.push((name.to_owned(), why.to_owned()));
    }

    /// The scripts that this client does wrong, but for those of which that is known.
    pub(crate) fn wrong_of(&self, client: &str) -> Vec<String> {
        let Some(column) = self.columns.iter().find(|column| column.name == client) else {
            return Vec::new();
        };
        let unknown =
            self.entries.iter().filter(|entry| !entry.script.differs.contains_key(client));
        let ids = unknown.map(|entry| &entry.script.id);
        ids.filter(|id| column.cells.get(*id).is_some_and(Cell::is_wrong)).cloned().collect()
    }

    /// All of them, for a terminal.
    pub(crate) fn table(&self) -> String {
        self.rows(Rows::All)
    }

    /// How many scripts each client does right, by file.
    pub(crate) fn counts(&self) -> String {
        let mut text = self.head("scripts", "right, wrong, cannot");
        let mut files: Vec<&str> = self.entries.iter().map(|entry| entry.file.as_str()).collect();
        files.dedup();
        for file in files.iter().map(|file| Some(*file)).chain([None]) {
            let of_file = |entry: &&Entry| file.is_none_or(|file| entry.file == file);
            let entries: Vec<_> = self.entries.iter().filter(of_file).collect();
            let name = file.unwrap_or("**all**");
            _ = write!(text, "| {name} | {} |", entries.len());
            for column in &self.columns {
                let count = |verdict| {
                    let cells =
                        entries.iter().filter_map(|entry| column.cells.get(&entry.script.id));
                    cells.filter(|cell| cell.verdict == verdict).count()
                };
                let [right, wrong, cannot] =
                    [Verdict::Right, Verdict::Wrong, Verdict::Cannot].map(count);
                _ = write!(text, " {right}, {wrong}, {cannot} |");
            }
            text += &"  not here |".repeat(self.absent.len());
            text.push('\n');
        }
        text
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("# Clients and the suite, {}\n\n{ABOUT}", self.date);
        _ = write!(text, "\n{}\n{}\n", self.counts(), self.table());
        text += "## What is right, and what was wrong\n\n";
        for Entry { script, .. } in &self.entries {
            _ = writeln!(text, "* `{}`: {}", script.id, script.what);
            for column in &self.columns {
                if let Some(cell) = column.cells.get(&script.id).filter(|cell| cell.is_wrong()) {
                    let why = script.differs.get(&column.name).map(|known| known.why.as_str());
                    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
                    _ = writeln!(text, "  * {}: {}{why}", column.name, cell.wrong.join("; "));
                }
            }
        }
        text
    }

    /// Counts, and the rows in which the clients are not alike.
    pub(crate) fn summary(&self) -> String {
        let kind = if self.is_quick { "quick run" } else { "whole run" };
        let command =
            if self.is_quick { "cargo xtask street --quick" } else { "cargo xtask street" };
        let mut text = format!(
            "# Results\n\n{}, {kind}, Linux x86-64, loopback. Written by `{command}`.\n\n{ABOUT}\n",
            self.date
        );
        text += &self.counts();
        for (name, why) in &self.absent {
            _ = writeln!(text, "\n{name} is not here: {why}.");
        }
        let mut different = self.rows(Rows::Different);
        if different.lines().count() <= 2 {
            "None.\n".clone_into(&mut different);
        }
        _ = write!(text, "\n## Where a client does something else\n\n{different}");
        text
    }

    pub(crate) fn json(&self) -> String {
        let rows: Vec<Json> = self.entries.iter().map(|entry| self.row_json(entry)).collect();
        let columns = self.columns.iter();
        let clients: Vec<Json> =
            columns.map(|column| json!({"name": column.name, "version": column.version})).collect();
        let absent: Vec<Json> =
            self.absent.iter().map(|(name, why)| json!({"name": name, "why": why})).collect();
        let all = json!({"date": self.date, "quick": self.is_quick, "clients": clients,
            "absent": absent, "rows": rows});
        format!("{all:#}\n")
    }

    fn row_json(&self, entry: &Entry) -> Json {
        let mut row = json!({"id": entry.script.id, "file": entry.file, "what": entry.script.what});
        for column in &self.columns {
            if let Some(cell) = column.cells.get(&entry.script.id) {
                let verdict = cell.verdict.name();
                let (wrong, seen) = (&cell.wrong, &cell.seen);
                row[&column.name] = json!({"verdict": verdict, "measured": cell.said,
                    "wrong": wrong, "seen": seen});
            }
        }
        row
    }

    pub(crate) fn html(&self) -> String {
        let mut text = format!(
            "<!doctype html><meta charset=utf-8><title>Clients and the suite</title>\
             <style>body{{font:14px sans-serif}}td,th{{border:1px solid #ccc;padding:3px 6px;\
             text-align:left;vertical-align:top}}table{{border-collapse:collapse}}\
             .right{{background:#e3f6e3}}.wrong{{background:#fbdede}}.cannot{{color:#888}}</style>\
             <h1>Clients and the suite, {}</h1><table><tr><th>script",
            self.date
        );
        for column in &self.columns {
            _ = write!(text, "<th>{} {}", column.name, column.version);
        }
        for Entry { script, .. } in &self.entries {
            let (id, what) = (&script.id, escaped(&script.what));
            _ = write!(text, "\n<tr><td><b>{id}</b><br>{what}");
            for cell in self.columns.iter().filter_map(|column| column.cells.get(id)) {
                let (name, said) = (cell.verdict.name(), escaped(&cell.said));
                let wrong = escaped(&cell.wrong.join("; "));
                _ = write!(
                    text,
                    "<td class={name} title=\"{}\">{name}: {said}",
                    wrong.replace('"', "'")
                );
            }
        }
        text + "</table>\n"
    }

    fn head(&self, first: &str, cells: &str) -> String {
        let mut text = format!("| {cells} | {first} |");
        let columns = self.columns.iter();
        columns.for_each(|column| _ = write!(text, " {} {} |", column.name, column.version));
        self.absent.iter().for_each(|(name, _)| _ = write!(text, " {name} |"));
        let count = 2 + self.columns.len() + self.absent.len();
        format!("{text}\n|{}\n", "---|".repeat(count))
    }

    fn rows(&self, rows: Rows) -> String {
        let mut text = self.head("what is right", "script");
        for Entry { script, .. } in &self.entries {
            let cells = self.columns.iter().map(|column| column.cells.get(&script.id));
            let cells: Vec<Option<&Cell>> = cells.collect();
            let is_different = cells.iter().flatten().any(|cell| cell.is_wrong());
            if rows == Rows::Different && !is_different {
                continue;
            }
            let what = script.what.replace('|', "\\|");
            _ = write!(text, "| {} | {what} |", script.id);
            for cell in cells {
                let said = cell.map(|cell| cell.in_words(rows)).unwrap_or_default();
                _ = write!(text, " {} |", said.replace('|', "\\|"));
            }
            text += &" not here |".repeat(self.absent.len());
            text.push('\n');
        }
        text
    }
}

// === impl Cell ===

impl Cell {
    fn is_wrong(&self) -> bool {
        self.verdict == Verdict::Wrong
    }

    fn in_words(&self, rows: Rows) -> String {
        match self.verdict {
            Verdict::Wrong => format!("**wrong**: {}", self.said),
            Verdict::Cannot if rows == Rows::Different => "cannot".to_owned(),
            verdict => format!("{}: {}", verdict.name(), self.said),
        }
    }
}

// === impl Verdict ===

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Wrong => "wrong",
            Self::Cannot => "cannot",
        }
    }
}
