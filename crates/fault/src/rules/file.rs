//! Rules in a text, one a line, and a file of them that is reloaded when it changes.

use super::{Entry, Malformed, Rule, Rules};
use cinchona_plumbing::clock::period;
use std::{convert::Infallible, path::Path, sync::Arc, time::Duration};
use tokio::time::sleep;

impl Rules {
    /// Replaces all rules by those of `text`: one a line, `name: rule`, or without a name, when it
    /// is called `line-N`. A `#` outside quotes begins a comment. No ttl is needed.
    ///
    /// A rule in force with the same name and words is kept, with its counters and its time.
    ///
    /// ```
    /// use cinchona_fault::Rules;
    ///
    /// let rules = Rules::default();
    /// rules.load("
    ///     ## Each third sum fails.
    ///     sums: method=/calculator.Calculator/Sum every=3 status=INTERNAL
    ///     delay=50ms..200ms
    /// ").unwrap();
    /// let ids: Vec<_> = rules.list().into_iter().map(|rule| rule.id).collect();
    /// assert_eq!(ids, ["sums", "line-4"]);
    ///
    /// let errors = rules.load("delay=1s\nhang=up\nrate=2 drop").unwrap_err();
    /// assert_eq!(errors.iter().map(|error| error.line()).collect::<Vec<_>>(), [Some(2), Some(3)]);
    /// assert_eq!(rules.list().len(), 2, "nothing has changed");
    /// ```
    ///
    /// # Errors
    /// The errors of each malformed line; no rule is changed then.
    pub fn load(&self, text: &str) -> Result<(), Vec<Malformed>> {
        let mut errors = Vec::new();
        let mut loaded: Vec<(String, Rule)> = Vec::new();
        for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line)) {
            match read(number, line) {
                Ok(Some((id, _))) if loaded.iter().any(|(known, _)| *known == id) => {
                    let at = line.find(&*id).map_or(0..0, |at| at..at + id.len());
                    let what = format!("`{id}` is the name of another rule");
                    let error = Malformed::new(line, at, what, "each name once");
                    errors.push(error.in_line(number, line, 0));
                }
                Ok(named) => loaded.extend(named),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        tracing::info!(rules = loaded.len(), "loading fault rules");
        self.change(|set| {
            let before = std::mem::take(set);
            set.extend(loaded.into_iter().map(|(id, rule)| {
                let same = before.iter().find(|entry| *entry.id == *id && entry.rule == rule);
                same.cloned().unwrap_or_else(|| Arc::new(Entry::new(&id, rule)))
            }));
        });
        Ok(())
    }

    /// Checks a file each `every`, which is at least 1 ms, and [loads](Self::load) it at first and
    /// whenever its contents have changed. A file that cannot be read, or is malformed, changes
    /// nothing and is logged as a warning.
    ///
    /// It never completes: spawn it, or select on it. Dropping it leaves the rules unchanged.
    pub async fn follow(&self, path: impl AsRef<Path>, every: Duration) -> Infallible {
        let path = path.as_ref();
        let mut before = None;
        loop {
            let now = tokio::fs::read_to_string(path).await.map_err(|error| error.to_string());
            if before.as_ref() != Some(&now) {
                self.reload(path, &now);
                before = Some(now);
            }
            sleep(period(every)).await;
        }
    }

    fn reload(&self, path: &Path, contents: &Result<String, String>) {
        let path = path.display();
        match contents {
            Ok(text) => {
                for error in self.load(text).err().into_iter().flatten() {
                    tracing::warn!(%path, "no fault rule has changed: {error}");
                }
            }
            Err(error) => tracing::warn!(%path, error, "cannot read the fault rules"),
        }
    }
}

/// The rule of a line and its name, if the line has one.
fn read(number: usize, line: &str) -> Result<Option<(String, Rule)>, Malformed> {
    let line = without_comment(line);
    let rest = line.trim_start();
    let head = rest.split(char::is_whitespace).next().unwrap_or_default();
    let name = head.strip_suffix(':').filter(|name| !name.is_empty() && !name.contains('='));
    let rule = if name.is_some() { &rest[head.len()..] } else { rest };
    if rest.is_empty() {
        return Ok(None);
    }
    let before = line.len() - rule.len();
    let id = name.map_or_else(|| format!("line-{number}"), str::to_owned);
    match rule.parse() {
        Ok(rule) => Ok(Some((id, rule))),
        Err(error) => Err(Malformed::in_line(error, number, line, before)),
    }
}

fn without_comment(line: &str) -> &str {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, c) in line.char_indices() {
        match c {
            '#' if !is_quoted => return line[..at].trim_end(),
            '"' if !is_escaped => is_quoted = !is_quoted,
            _ => {}
        }
        is_escaped = is_quoted && c == '\\' && !is_escaped;
    }
    line.trim_end()
}
