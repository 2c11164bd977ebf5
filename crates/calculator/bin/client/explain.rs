//! `--explain`: what the client did for a call, drawn over time.

use cinchona::{
    core::Verdict,
    retry::{Attempt, Ledger, Stop},
};
use cinchona_plumbing::code;
use std::{fmt::Write, time::Duration};
use tonic::{Extensions, Status};

/// The width of the call's whole time, in characters.
const WIDTH: usize = 40;

/// The drawing of a call that was answered; of a second answer, that of the call that failed.
pub(crate) fn story(extensions: &Extensions) -> Option<&Ledger> {
    let failed: Option<&Status> = extensions.get();
    extensions.get().or_else(|| failed.and_then(Ledger::of))
}

/// The attempts of a call, each a bar from its beginning to its end.
pub(crate) fn drawn(ledger: &Ledger) -> String {
    let attempts = ledger.attempts();
    let end = |attempt: &Attempt| attempt.began + attempt.duration;
    let whole = attempts.iter().map(end).max().unwrap_or_default();
    let plural = if attempts.len() == 1 { "" } else { "s" };
    let mut text = format!("{} attempt{plural} in {}, ", attempts.len(), time(whole));
    let _ = match ledger.stopped() {
        Stop::Succeeded => writeln!(text, "succeeded"),
        stopped => writeln!(text, "failed; why there was not another: {stopped}"),
    };
    let widest = |text: &dyn Fn(&Attempt) -> usize| attempts.iter().map(text).max().unwrap_or(0);
    let wide = widest(&|attempt| attempt.endpoint.as_deref().unwrap_or("-").len());
    let kinds = widest(&|attempt| attempt.kind.to_string().len());
    // By when they began: attempts that were cancelled end last.
    let mut ordered: Vec<_> = attempts.iter().collect();
    ordered.sort_by_key(|attempt| attempt.began);
    for (n, attempt) in (1..).zip(ordered) {
        let endpoint = attempt.endpoint.as_deref().unwrap_or("-");
        let (kind, bar) = (attempt.kind.to_string(), bar(attempt, whole));
        let _ = write!(text, "  #{n:<2} {kind:<kinds$} {endpoint:<wide$} |{bar}| ");
        let _ = write!(text, "{} after {}", outcome(attempt), time(attempt.duration));
        if !attempt.wait.is_zero() {
            let _ = write!(text, ", then waited {}", time(attempt.wait));
        }
        text.push('\n');
    }
    text
}

/// `#` while the attempt was under way, `.` while the call then waited.
fn bar(attempt: &Attempt, whole: Duration) -> String {
    let column = |at: Duration| {
        let share = at.as_secs_f64() / whole.as_secs_f64().max(f64::MIN_POSITIVE);
        ((share * WIDTH as f64).round() as usize).min(WIDTH)
    };
    let began = column(attempt.began).min(WIDTH - 1);
    // At least one character, however short it was.
    let ended = column(attempt.began + attempt.duration).max(began + 1);
    let waited = column(attempt.began + attempt.duration + attempt.wait).max(ended);
    let parts = [(" ", began), ("#", ended - began), (".", waited - ended), (" ", WIDTH - waited)];
    parts.map(|(character, times)| character.repeat(times)).concat()
}

fn outcome(attempt: &Attempt) -> String {
    let name = code::name(attempt.verdict.code());
    match attempt.verdict {
        Verdict::NotProcessed(stage) => format!("{name} ({stage})"),
        _ => name.to_owned(),
    }
}

/// To three digits or so.
fn time(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{:.1} ms", time.as_secs_f64() * 1e3)
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}
