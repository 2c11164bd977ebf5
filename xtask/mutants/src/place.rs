//! Which piece of a file a mutant takes the place of: an operator alone cannot be chosen by a
//! variable, the expression around it can.

use crate::mutant::Mutant;
use std::{collections::BTreeMap, ops::Range};
use syn::{spanned::Spanned, visit::Visit};

/// A piece of a file, and what may stand there instead.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) span: Range<usize>,
    pub(crate) variants: Vec<Variant>,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) id: usize,
    pub(crate) text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All that a function does.
    Body,
    Expression,
    /// Where arms are taken away: what is left may not be all that there can be.
    Match,
    /// After the pattern of an arm that is taken away; it is empty, or the guard that is there.
    Arm {
        has_guard: bool,
    },
}

/// The places of `mutants`, which are all of the file `text`; those without one are left out.
pub(crate) fn find(text: &str, mutants: &[&Mutant]) -> syn::Result<Vec<Place>> {
    let mut finder = Finder { text, mutants: BTreeMap::new(), places: BTreeMap::new() };
    for mutant in mutants {
        let span = mutant.span(text);
        match mutant.genre.as_str() {
            "FnValue" => {
                finder.add(span, Kind::Body, mutant.id, mutant.replacement.clone());
            }
            "MatchArmGuard" => {
                finder.add(span, Kind::Expression, mutant.id, mutant.replacement.clone());
            }
            _ => finder.mutants.entry(span.start).or_default().push(mutant),
        }
    }
    finder.visit_file(&syn::parse_file(text)?);
    Ok(finder.places.into_values().collect())
}

struct Finder<'a> {
    text: &'a str,
    /// By where they begin.
    mutants: BTreeMap<usize, Vec<&'a Mutant>>,
    /// By where they begin and end, and how far inside they are.
    places: BTreeMap<(usize, usize, u8), Place>,
}

// === impl Kind ===

impl Kind {
    /// Of those with the same piece, a body is outside of what it ends with, an arm's condition
    /// outside of its guard. The whole of the arms writes nothing, and says where they are.
    pub(crate) const fn depth(self) -> u8 {
        match self {
            Self::Body => 0,
            Self::Match => 1,
            Self::Arm { .. } => 2,
            Self::Expression => 3,
        }
    }
}

// === impl Finder ===

impl Finder<'_> {
    fn add(&mut self, span: Range<usize>, kind: Kind, id: usize, text: String) {
        let key = (span.start, span.end, kind.depth());
        let place = Place { span, variants: Vec::new(), kind };
        self.places.entry(key).or_insert(place).variants.push(Variant { id, text });
    }

    /// The mutants that begin at `at` are in an expression that is `whole`.
    fn add_within(&mut self, at: usize, whole: Range<usize>) {
        for mutant in self.mutants.remove(&at).unwrap_or_default() {
            let Range { start, end } = mutant.span(self.text);
            let (before, after) = (&self.text[whole.start..start], &self.text[end..whole.end]);
            let text = format!("{before}{}{after}", mutant.replacement);
            self.add(whole.clone(), Kind::Expression, mutant.id, text);
        }
    }
}

/// Whether it binds names, as `if let Some(a) = b && a > c`: that is no expression of its own.
fn has_let(it: &syn::ExprBinary) -> bool {
    [&it.left, &it.right].into_iter().any(|side| match &**side {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(inner) => has_let(inner),
        _ => false,
    })
}

impl Visit<'_> for Finder<'_> {
    fn visit_expr_binary(&mut self, it: &syn::ExprBinary) {
        if !has_let(it) {
            self.add_within(it.op.span().byte_range().start, it.span().byte_range());
        }
        syn::visit::visit_expr_binary(self, it);
    }

    fn visit_expr_unary(&mut self, it: &syn::ExprUnary) {
        self.add_within(it.op.span().byte_range().start, it.span().byte_range());
        syn::visit::visit_expr_unary(self, it);
    }

    fn visit_expr_struct(&mut self, it: &syn::ExprStruct) {
        for field in &it.fields {
            self.add_within(field.span().byte_range().start, it.span().byte_range());
        }
        syn::visit::visit_expr_struct(self, it);
    }

    /// What the compiler calculates is chosen before anything runs.
    fn visit_item_const(&mut self, _: &syn::ItemConst) {}

    fn visit_impl_item_const(&mut self, _: &syn::ImplItemConst) {}

    fn visit_item_static(&mut self, _: &syn::ItemStatic) {}

    fn visit_expr_match(&mut self, it: &syn::ExprMatch) {
        for arm in &it.arms {
            let taken = self.mutants.get(&arm.span().byte_range().start);
            for id in taken.into_iter().flatten().map(|mutant| mutant.id).collect::<Vec<_>>() {
                self.add(it.span().byte_range(), Kind::Match, id, String::new());
            }
        }
        syn::visit::visit_expr_match(self, it);
    }

    fn visit_arm(&mut self, it: &syn::Arm) {
        for mutant in self.mutants.remove(&it.span().byte_range().start).unwrap_or_default() {
            let guard = it.guard.as_ref().map(|(_, guard)| guard.span().byte_range());
            let has_guard = guard.is_some();
            let end = it.pat.span().byte_range().end;
            let span = guard.unwrap_or(end..end);
            self.add(span, Kind::Arm { has_guard }, mutant.id, String::new());
        }
        syn::visit::visit_arm(self, it);
    }
}
