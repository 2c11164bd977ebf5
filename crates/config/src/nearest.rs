//! Suggestions for a misspelt name.

/// Longer names are compared by their beginning.
const MOST: usize = 128;

/// The one of `known` that `name` is a misspelling of, if any: at most a third of it is wrong, case
/// and underscores aside.
pub(crate) fn misspelt<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, nearest) = by_distance(name, known)?;
    (3 * distance <= nearest.len()).then_some(nearest)
}

/// The one of `known` that is most similar to `name`; `None` where there is none.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    by_distance(name, known).map(|(_, nearest)| nearest)
}

fn by_distance<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<(usize, &'a str)> {
    let name = plain(name);
    known.map(|known| (distance(&name, &plain(known)), known)).min()
}

fn plain(name: &str) -> Vec<char> {
    let letters = name.chars().filter(|letter| *letter != '_').take(MOST);
    letters.flat_map(char::to_lowercase).collect()
}

/// How many letters must be inserted, deleted or replaced (Levenshtein), row by row.
fn distance(from: &[char], to: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_is_found_and_a_strange_one_is_not() {
        let known = ["maxAttempts", "initialBackoff", "maxBackoff", "timeout"];
        for (name, expected) in [
            ("maxAttempt", Some("maxAttempts")),
            ("max_attempts", Some("maxAttempts")),
            ("MaxAttempts", Some("maxAttempts")),
            ("initalBackof", Some("initialBackoff")),
            ("timeOut", Some("timeout")),
            ("balancing", None),
            ("", None),
        ] {
            assert_eq!(misspelt(name, known.into_iter()), expected, "{name}");
        }
        assert_eq!(misspelt("x", std::iter::empty()), None);
    }

    #[test]
    fn the_nearest_name_is_the_one_with_the_fewest_edits() {
        for (from, to, expected) in
            [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("same", "same", 0)]
        {
            assert_eq!(distance(&plain(from), &plain(to)), expected, "{from} {to}");
        }
        assert_eq!(nearest("Sun", ["Add", "Sum"].into_iter()), Some("Sum"));
        let long = "a".repeat(1_000_000);
        assert_eq!(nearest(&long, ["b", "a"].into_iter()), Some("a"));
    }
}
