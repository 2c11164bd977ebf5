//! The outcomes, as a table, Markdown, JSON and HTML.

use crate::{chart, entry::Entry, run::Without, tally::Summary};
use serde::Serialize;
use std::{fmt::Write, fs, io, path::Path, time::Duration};

/// The report of one run of the demo.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) clock: &'static str,
    pub(crate) scenarios: Vec<Entry>,
    pub(crate) studies: Vec<Study>,
}

/// A question, and what was measured in virtual time.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Study {
    pub(crate) question: &'static str,
    pub(crate) answer: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) table: Vec<Vec<String>>,
    /// A chart for the page, if it shows more than the table.
    #[serde(skip)]
    pub(crate) chart: String,
    pub(crate) expectation: &'static str,
    pub(crate) met: bool,
}

const HEADINGS: [&str; 13] = [
    "scenario",
    "calls",
    "ok",
    "failed",
    "retries",
    "mean",
    "p50",
    "p95",
    "p99",
    "failure rate",
    "attempts/call",
    "injected",
    "seen",
];

// === impl Report ===

impl Report {
    /// Whether every scenario had the expected outcome.
    pub(crate) fn all_met(&self) -> bool {
        self.scenarios.iter().all(|entry| entry.met) && self.studies.iter().all(|study| study.met)
    }

    /// Writes `report.md`, `report.json` and `report.html` to `dir`.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        fs::write(dir.join("report.md"), self.markdown())?;
        fs::write(dir.join("report.json"), serde_json::to_string_pretty(self)? + "\n")?;
        fs::write(dir.join("report.html"), self.html())
    }

    /// The tables for a terminal.
    pub(crate) fn text(&self) -> String {
        let mut text = aligned(&self.rows());
        text.push('\n');
        for Entry { name, expectation, met, .. } in &self.scenarios {
            let mark = if *met { "met   " } else { "NOT MET" };
            let _ = writeln!(text, "{mark} {name}: {expectation}");
        }
        for Study { question, answer, table, expectation, met, .. } in &self.studies {
            let mark = if *met { "met   " } else { "NOT MET" };
            let _ = writeln!(text, "\n{question}\n  {answer}");
            for row in aligned(table).lines() {
                let _ = writeln!(text, "    {row}");
            }
            let _ = writeln!(text, "  {mark} {expectation}");
        }
        if let Some(rows) = self.ablation_rows() {
            let _ = write!(text, "\nEach layer removed, in virtual time (succeeded, p99):\n\n");
            text.push_str(&aligned(&rows));
        }
        text
    }

    fn markdown(&self) -> String {
        let Self { seed, clock, .. } = self;
        let mut text = format!("# Calculator under faults\n\nSeed {seed}, {clock}.\n\n");
        text.push_str(&piped(&self.rows()));
        text.push_str("\n_Injected_ and _seen_: failures + delays.\n\n## Expectations\n\n");
        for Entry { name, expectation, met, .. } in &self.scenarios {
            let mark = if *met { "x" } else { " " };
            let _ = writeln!(text, "- [{mark}] **{name}**: {expectation}");
        }
        text.push_str("\n## Beyond the scenarios\n\n");
        for Study { question, answer, table, expectation, met, .. } in &self.studies {
            let mark = if *met { "x" } else { " " };
            let _ = writeln!(text, "- [{mark}] **{question}** {answer} Expected: {expectation}.");
            if !table.is_empty() {
                let _ = write!(text, "\n{}\n", piped(table));
            }
        }
        if let Some(rows) = self.ablation_rows() {
            text.push_str("\n## Each layer removed\n\nSucceeded and p99, in virtual time.\n\n");
            text.push_str(&piped(&rows));
        }
        text
    }

    fn html(&self) -> String {
        let Self { seed, clock, .. } = self;
        let expectations = self.scenarios.iter().fold(String::new(), |mut list, entry| {
            let Entry { name, expectation, met, .. } = entry;
            let class = if *met { "met" } else { "unmet" };
            let _ = write!(list, "<li class={class}><b>{name}</b>: {expectation}");
            list
        });
        let studies = self.studies.iter().fold(String::new(), |mut list, study| {
            let Study { question, answer, table, chart, expectation, met } = study;
            let class = if *met { "met" } else { "unmet" };
            let table = if table.is_empty() { String::new() } else { tagged(table) };
            let _ = write!(
                list,
                "<li class={class}><b>{question}</b> {answer} \
                 Expected: {expectation}.{table}{chart}"
            );
            list
        });
        let ablations = self.ablation_rows().map_or(String::new(), |rows| {
            let table = tagged(&rows);
            format!("<h2>Each layer removed</h2><p>Succeeded and p99, in virtual time.{table}")
        });
        format!(
            "<!doctype html><html lang=en><meta charset=utf-8>\
             <meta name=viewport content='width=device-width'>\
             <title>Calculator under faults</title><style>{STYLE}</style>\
             <h1>Calculator under faults</h1><p>Seed {seed}, {clock}.\
             <div class=wide>{table}</div><p><i>Injected</i> and <i>seen</i>: failures + delays.\
             <h2>Expectations</h2><ul>{expectations}</ul>\
             <h2>Response time</h2><figure>{latency}</figure>\
             <h2>Attempts per call</h2><figure>{attempts}</figure>\
             <h2>Beyond the scenarios</h2><ul>{studies}</ul>{ablations}</html>\n",
            table = tagged(&self.rows()),
            latency = chart::latency(&self.scenarios),
            attempts = chart::attempts(&self.scenarios),
        )
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let headings = HEADINGS.map(str::to_owned).to_vec();
        let row = |Entry { name, seen, .. }: &Entry| {
            vec![
                (*name).to_owned(),
                seen.calls.to_string(),
                seen.succeeded.to_string(),
                seen.failed.to_string(),
                seen.retries.to_string(),
                seconds(seen.mean),
                seconds(seen.p50),
                seconds(seen.p95),
                seconds(seen.p99),
                percent(seen.failure_rate),
                format!("{:.2}", seen.attempts_per_call),
                format!("{}+{}", seen.injected.failures, seen.injected.delays),
                format!("{}+{}", seen.seen.failures, seen.seen.delays),
            ]
        };
        std::iter::once(headings).chain(self.scenarios.iter().map(row)).collect()
    }

    fn ablation_rows(&self) -> Option<Vec<Vec<String>>> {
        self.scenarios.iter().find(|entry| !entry.ablations.is_empty())?;
        let layers = Without::LAYERS.map(|(_, name)| format!("without {name}"));
        let headings = ["scenario".to_owned(), "all layers".to_owned()].into_iter().chain(layers);
        let cell =
            |seen: &Summary| format!("{}, {}", percent(seen.success_rate()), seconds(seen.p99));
        let row = |entry: &Entry| {
            let removed = entry.ablations.iter().map(|ablation| cell(&ablation.seen));
            [entry.name.to_owned(), cell(&entry.seen)].into_iter().chain(removed).collect()
        };
        let rows = self.scenarios.iter().map(row);
        Some(std::iter::once(headings.collect()).chain(rows).collect())
    }
}

fn seconds(duration: Duration) -> String {
    match duration.as_secs_f64() {
        short if short < 1.0 => format!("{:.0} ms", short * 1e3),
        long => format!("{long:.2} s"),
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// Columns padded to their widest cell, the first to the left and the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |n: usize| rows.iter().map(|row| row[n].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    rows.iter().fold(String::new(), |mut text, row| {
        for (n, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match n {
                0 => write!(text, "{cell:<width$}"),
                _ => write!(text, "  {cell:>width$}"),
            };
        }
        text + "\n"
    })
}

fn piped(rows: &[Vec<String>]) -> String {
    let mut lines: Vec<String> =
        rows.iter().map(|row| format!("| {} |\n", row.join(" | "))).collect();
    let columns = rows.first().map_or(0, Vec::len).saturating_sub(1);
    lines.insert(1, format!("|---|{}\n", "---:|".repeat(columns)));
    lines.concat()
}

fn tagged(rows: &[Vec<String>]) -> String {
    let row =
        |tag: &str, row: &Vec<String>| format!("<tr><{tag}>{}", row.join(&format!("<{tag}>")));
    let body: String = rows.iter().skip(1).map(|cells| row("td", cells)).collect();
    format!("<table>{}{body}</table>", row("th", &rows[0]))
}

const STYLE: &str = "\
:root{color-scheme:light dark;font:15px/1.5 system-ui,sans-serif}\
body{max-width:68rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
td,th{padding:.2rem .6rem;text-align:right;border-bottom:1px solid #8884;white-space:nowrap}\
td:first-child,th:first-child{text-align:left}\
.wide{overflow-x:auto}figcaption{padding:.6rem 1rem 0;color:#222}\
figcaption i{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 .9em}\
figure{margin:0;background:#fff;border-radius:6px}\
svg{width:100%;height:auto}.unmet{color:#c22}.unmet b::before{content:'NOT MET '}";
