//! What `cargo mutants --list --json` says.

use serde_json::Value;
use std::ops::Range;

/// A place in one file, and what is there instead.
#[derive(Debug, Clone)]
pub(crate) struct Mutant {
    /// From 1 on; 0 is the code as it is.
    pub(crate) id: usize,
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) genre: String,
    pub(crate) replacement: String,
    /// Lines and columns, both from 1 on.
    from: (usize, usize),
    to: (usize, usize),
}

impl Mutant {
    /// All of a listing.
    pub(crate) fn read(listed: &str) -> Option<Vec<Self>> {
        let listed: Value = serde_json::from_str(listed).ok()?;
        let mutants = listed.as_array()?.iter().zip(1..);
        mutants.map(|(mutant, id)| Self::of(mutant, id)).collect()
    }

    fn of(value: &Value, id: usize) -> Option<Self> {
        let word = |key: &str| Some(value.get(key)?.as_str()?.to_owned());
        let place = |end: &str| {
            let place = value.get("span")?.get(end)?;
            let number = |key: &str| usize::try_from(place.get(key)?.as_u64()?).ok();
            Some((number("line")?, number("column")?))
        };
        Some(Self {
            id,
            name: word("name")?,
            file: word("file")?,
            genre: word("genre")?,
            replacement: word("replacement")?,
            from: place("start")?,
            to: place("end")?,
        })
    }

    /// Where it is in `text`, in bytes.
    pub(crate) fn span(&self, text: &str) -> Range<usize> {
        offset(text, self.from)..offset(text, self.to)
    }

    /// `text` with this mutant in it, as cargo-mutants makes it.
    pub(crate) fn in_text(&self, text: &str) -> String {
        let Range { start, end } = self.span(text);
        format!("{}{}{}", &text[..start], self.replacement, &text[end..])
    }
}

/// The byte at a line and a column, both from 1 on, the column in characters.
pub(crate) fn offset(text: &str, (line, column): (usize, usize)) -> usize {
    let before = text.split_inclusive('\n').take(line - 1).map(str::len).sum::<usize>();
    let of_line = text[before..].chars().take(column - 1).map(char::len_utf8).sum::<usize>();
    before + of_line
}
