//! A file in which each mutant is there, and chosen by a number.

use crate::place::{Kind, Place, Variant};
use std::{cmp::Reverse, ops::Range};

/// What is put at the beginning of the crate: the number of the mutant that is on.
pub(crate) const FEATURES: &str =
    "#![allow(internal_features, warnings)]\n#![feature(core_intrinsics, const_eval_select)]\n";

/// What is put at its end. A function that may be called by the compiler has the code as it is.
pub(crate) const SWITCH: &str = r#"
#[doc(hidden)]
#[allow(warnings, clippy::all)]
pub mod mutant_that_is_on {
    static ON: std::sync::LazyLock<usize> = std::sync::LazyLock::new(|| {
        std::env::var("CINCHONA_MUTANT").ok().and_then(|id| id.parse().ok()).unwrap_or(0)
    });
    const fn none() -> usize {
        0
    }
    fn at_run_time() -> usize {
        *ON
    }
    pub const fn id() -> usize {
        core::intrinsics::const_eval_select((), none, at_run_time)
    }
}
"#;

const ON: &str = "crate::mutant_that_is_on::id()";

/// A file that was written.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) text: String,
    /// Where which mutants are; what is within another comes later.
    pub(crate) parts: Vec<(Range<usize>, Vec<usize>)>,
}

/// `text` with all of `places`.
pub(crate) fn write(text: &str, places: &[Place]) -> Written {
    let mut places: Vec<&Place> = places.iter().filter(|it| !it.variants.is_empty()).collect();
    // From outside to inside.
    places.sort_by_key(|it| (it.span.start, Reverse(it.span.end), it.kind.depth()));
    let mut written = Written::default();
    written.piece(text, 0..text.len(), &mut places.as_slice());
    written
}

// === impl Written ===

impl Written {
    /// What is between, and the places in it.
    fn piece(&mut self, text: &str, span: Range<usize>, rest: &mut &[&Place]) {
        let mut at = span.start;
        while let [place, others @ ..] = *rest {
            if place.span.start < at || place.span.end > span.end {
                break;
            }
            *rest = others;
            self.text.push_str(&text[at..place.span.start]);
            self.place(text, place, rest);
            at = place.span.end;
        }
        self.text.push_str(&text[at..span.end]);
    }

    fn place(&mut self, text: &str, place: &Place, rest: &mut &[&Place]) {
        let ids: Vec<usize> = place.variants.iter().map(|variant| variant.id).collect();
        let whole = self.parts.len();
        let begin = self.text.len();
        self.parts.push((begin..begin, ids));
        match place.kind {
            Kind::Body => {
                for variant in &place.variants {
                    self.variant(
                        &format!("if {ON} == {} {{ return ", variant.id),
                        variant,
                        "; }\n",
                    );
                }
                self.piece(text, place.span.clone(), rest);
            }
            Kind::Expression => {
                let none_is_on: Vec<String> =
                    place.variants.iter().map(|variant| format!("on != {}", variant.id)).collect();
                let none_is_on = none_is_on.join(" && ");
                self.text.push_str(&format!("(match {ON} {{ on if {none_is_on} => ("));
                self.piece(text, place.span.clone(), rest);
                self.text.push_str("),\n");
                for (number, variant) in place.variants.iter().enumerate() {
                    let is_last = number + 1 == place.variants.len();
                    let pattern = if is_last { "_".to_owned() } else { variant.id.to_string() };
                    self.variant(&format!("{pattern} => ("), variant, "),\n");
                }
                self.text.push_str("})");
            }
            Kind::Match => self.piece(text, place.span.clone(), rest),
            Kind::Arm { has_guard } => {
                let ids = place.variants.iter().map(|variant| format!("{ON} != {}", variant.id));
                let is_there = ids.collect::<Vec<_>>().join(" && ");
                match has_guard {
                    true => {
                        self.text.push_str(&format!("{is_there} && ("));
                        self.piece(text, place.span.clone(), rest);
                        self.text.push(')');
                    }
                    false => self.text.push_str(&format!(" if {is_there}")),
                }
            }
        }
        self.parts[whole].0 = begin..self.text.len();
    }

    fn variant(&mut self, before: &str, variant: &Variant, after: &str) {
        let begin = self.text.len();
        for piece in [before, &variant.text, after] {
            self.text.push_str(piece);
        }
        self.parts.push((begin..self.text.len(), vec![variant.id]));
    }

    /// The mutants that are at a byte, the smallest piece that has it.
    pub(crate) fn at(&self, byte: usize) -> Option<&[usize]> {
        let having = self.parts.iter().filter(|(span, _)| span.contains(&byte));
        having.min_by_key(|(span, _)| span.len()).map(|(_, ids)| ids.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mutant::Mutant, place};

    const TEXT: &str = "fn f(a: u8) -> u8 {\n    a + 1 * 2\n}\n";

    fn listed(genre: &str, replacement: &str, from: u8, to: u8) -> String {
        let place = |column: u8| format!(r#"{{"line": 2, "column": {column}}}"#);
        format!(
            r#"{{"name": "n", "file": "f", "genre": "{genre}", "replacement": "{replacement}",
            "span": {{"start": {}, "end": {}}}}}"#,
            place(from),
            place(to)
        )
    }

    #[test]
    fn each_mutant_is_beside_the_code_that_it_replaces_and_is_found_by_its_place() {
        let listed = [
            listed("FnValue", "0", 5, 14),
            listed("BinaryOperator", "-", 7, 8),
            listed("BinaryOperator", "/", 11, 12),
        ];
        let mutants = Mutant::read(&format!("[{}]", listed.join(","))).unwrap();
        assert_eq!(mutants[1].in_text(TEXT), TEXT.replace('+', "-"));
        let places = place::find(TEXT, &mutants.iter().collect::<Vec<_>>()).unwrap();
        let written = write(TEXT, &places);
        let inner = format!("(match {ON} {{ on if on != 3 => (1 * 2),\n_ => (1 / 2),\n}})");
        let outer =
            format!("(match {ON} {{ on if on != 2 => (a + {inner}),\n_ => (a - 1 * 2),\n}})");
        let body = format!("if {ON} == 1 {{ return 0; }}\n{outer}");
        assert_eq!(written.text, format!("fn f(a: u8) -> u8 {{\n    {body}\n}}\n"));
        let at = |piece: &str| written.at(written.text.find(piece).unwrap()).unwrap().to_vec();
        assert_eq!([at("return 0"), at("a - 1"), at("1 / 2")], [[1], [2], [3]]);
        assert_eq!(written.at(0), None);
    }

    /// The compiler points at what is matched where an arm without which it is not whole is taken.
    #[test]
    fn an_arm_is_also_to_be_found_at_the_whole_of_its_match() {
        let text = "fn f(a: u8) -> u8 {\n    match a { 0 => 1, _ => 2 }\n}\n";
        let arm = listed("MatchArm", "", 15, 21);
        let mutants = Mutant::read(&format!("[{arm}]")).unwrap();
        let places = place::find(text, &mutants.iter().collect::<Vec<_>>()).unwrap();
        let written = write(text, &places);
        assert_eq!(written.text, text.replace("0 =>", &format!("0 if {ON} != 1 =>")));
        let at = |piece: &str| written.at(written.text.find(piece).unwrap());
        assert_eq!([at("a { 0"), at("_ => 2")], [Some(&[1][..]); 2]);
        assert_eq!(written.at(0), None);
    }

    #[test]
    fn a_condition_that_binds_a_name_is_left_as_it_is_but_for_what_it_compares() {
        let text = "fn f(a: Option<u8>) {\n    if let Some(b) = a && b > 1 {}\n}\n";
        let listed = [(24, 26, "||"), (29, 30, "<")]
            .map(|(from, to, other)| listed("BinaryOperator", other, from, to));
        let mutants = Mutant::read(&format!("[{}]", listed.join(","))).unwrap();
        let places = place::find(text, &mutants.iter().collect::<Vec<_>>()).unwrap();
        let compared = format!("(match {ON} {{ on if on != 2 => (b > 1),\n_ => (b < 1),\n}})");
        assert_eq!(write(text, &places).text, text.replace("b > 1", &compared));
    }

    #[test]
    fn a_file_without_mutants_stays_as_it_is() {
        assert_eq!(write(TEXT, &[]).text, TEXT);
    }
}
