//! The parser of rules.

mod word;

use super::{Action, MESSAGE, Rule, Scope, Trigger, Ttl, Wait};
use crate::{Malformed, When};
use std::{ops::Range, str::FromStr};
use word::{Parsed, Word};

/// The keys of words.
const KEYS: [&str; 24] = [
    "attempt",
    "caller",
    "cut",
    "delay",
    "details",
    "drip",
    "drop",
    "every",
    "first",
    "goaway",
    "hang",
    "health",
    "message",
    "metadata.KEY",
    "method",
    "mix",
    "panic",
    "rate",
    "reset",
    "status",
    "trailers",
    "ttl",
    "when",
    "window",
];

const EFFECTS: &str = "delay, and one of cut, drip, drop, goaway, hang, mix, panic, reset, status, \
    trailers";

/// A rule whose words are partly parsed.
#[derive(Default)]
struct Draft {
    scope: Scope,
    trigger: Trigger,
    ttl: Ttl,
    when: When,
    delay: Option<Wait>,
    action: Option<(Action, Range<usize>)>,
    message: Option<(String, Range<usize>)>,
    details: Option<(Vec<u8>, Range<usize>)>,
}

// === impl Rule ===

impl FromStr for Rule {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        rule(text)
    }
}

fn rule(text: &str) -> Parsed<Rule> {
    let mut draft = Draft::default();
    let (mut seen, mut at) = (Vec::new(), 0);
    while let Some((word, end)) = Word::next(text, at)? {
        let twice = word.key != "metadata" && seen.contains(&word.key);
        if twice && !word.key.starts_with("metadata.") {
            let what = format!("`{}` is set twice", word.key);
            return Err(Malformed::new(text, word.key_at, what, "each word once"));
        }
        seen.push(word.key);
        draft.read(&word)?;
        at = end;
    }
    draft.finish(text)
}

// === impl Draft ===

impl Draft {
    fn read(&mut self, word: &Word<'_>) -> Parsed<()> {
        match word.key {
            "health" => self.scope.health = word.bare().map(|()| true)?,
            "method" => self.scope.method = word.method()?,
            "caller" => self.scope.caller = Some(word.caller()?),
            "attempt" => self.scope.attempt = Some(word.attempts()?),
            "rate" => self.trigger.rate = word.rate()?,
            "every" => self.trigger.every = Some(word.count()?),
            "first" => self.trigger.first = Some(word.count()?.get()),
            "window" => self.trigger.window = Some(word.window()?),
            "ttl" => self.ttl = word.ttl()?,
            "when" => self.when = word.when()?,
            "delay" => self.delay = Some(word.delay()?),
            "message" => self.message = Some((word.value("a text")?.into(), word.whole())),
            "details" => self.details = Some((word.details()?, word.whole())),
            key => match key.strip_prefix("metadata.") {
                Some(name) => self.scope.metadata.push(word.metadata(name)?),
                None => return self.act(word),
            },
        }
        Ok(())
    }

    fn act(&mut self, word: &Word<'_>) -> Parsed<()> {
        let action = match word.key {
            "status" => self.status(word)?,
            "mix" => Action::Status {
                codes: word.mix()?,
                message: MESSAGE.to_owned(),
                details: Vec::new(),
            },
            "hang" => word.hang()?,
            "cut" => word.cut()?,
            "reset" => Action::Reset(word.reset(word.value("an HTTP/2 error code")?)?),
            "drop" => word.bare().map(|()| Action::Drop)?,
            "goaway" => {
                let code = word.value.as_deref().map(|code| word.reset(code));
                Action::GoAway(code.transpose()?)
            }
            "trailers" => Action::Trailers(word.trailers()?),
            "drip" => word.drip()?,
            "panic" => word.bare().map(|()| Action::Panic)?,
            unknown => {
                let (what, allowed) = (format!("unknown word `{unknown}`"), KEYS.join(", "));
                return Err(Malformed::new(word.text, word.key_at.clone(), what, allowed));
            }
        };
        if let Some((_, first)) = &self.action {
            let first = word.text.get(first.clone()).unwrap_or_default();
            let what = format!("a rule has one effect, and there is `{first}` already");
            return Err(Malformed::new(word.text, word.whole(), what, EFFECTS));
        }
        self.action = Some((action, word.whole()));
        Ok(())
    }

    fn status(&mut self, word: &Word<'_>) -> Parsed<Action> {
        let allowed = "CODE, or CODE:\"message\"";
        let value = word.value(allowed)?;
        let (name, message) = value.split_once(':').unwrap_or((value, MESSAGE));
        let codes = vec![(word.code(name)?, 1)];
        Ok(Action::Status { codes, message: message.to_owned(), details: Vec::new() })
    }

    fn finish(self, text: &str) -> Parsed<Rule> {
        let Self { scope, trigger, ttl, when, delay, mut action, message, details } = self;
        if action.is_none() && delay.is_none() {
            let end = text.len()..text.len();
            return Err(Malformed::new(text, end, "nothing to inject", EFFECTS));
        }
        if let Some((Action::Status { message: words, details: bytes, .. }, _)) = &mut action {
            message.into_iter().for_each(|(message, _)| *words = message);
            details.into_iter().for_each(|(details, _)| *bytes = details);
        } else if let Some(at) = message.map(|(_, at)| at).or(details.map(|(_, at)| at)) {
            let what = "there is no status for it to go with";
            return Err(Malformed::new(text, at, what, "status, mix"));
        }
        if let (Some((Action::GoAway(_), at)), When::After) = (&action, when) {
            let what = "a request that is sent away is not executed";
            return Err(Malformed::new(text, at.clone(), what, "when=before"));
        }
        let action = action.map(|(action, _)| action);
        Ok(Rule { scope, trigger, ttl, when, delay, action })
    }
}
