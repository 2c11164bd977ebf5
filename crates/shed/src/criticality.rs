//! How much a call matters.

use cinchona_plumbing::headers;
use cinchona_policy::concurrency::Criticality as Class;
use http::{HeaderMap, HeaderName};

/// The request header with the criticality of a call.
pub const CRITICALITY: HeaderName = HeaderName::from_static("criticality");

/// How much a call matters, in the four classes of Site Reliability Engineering (chapter 21).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Criticality {
    /// `sheddable`: may fail often, and now and then entirely; batch work that can be repeated.
    Sheddable,
    /// `sheddable_plus`: may fail in part.
    SheddablePlus,
    /// `critical`: users notice. The default.
    #[default]
    Critical,
    /// `critical_plus`: the last to be refused.
    CriticalPlus,
}

// === impl Criticality ===

impl Criticality {
    pub(crate) const ALL: [Self; 4] =
        [Self::Sheddable, Self::SheddablePlus, Self::Critical, Self::CriticalPlus];

    /// The value of the header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sheddable => "sheddable",
            Self::SheddablePlus => "sheddable_plus",
            Self::Critical => "critical",
            Self::CriticalPlus => "critical_plus",
        }
    }

    /// The criticality in the headers of a request; the default if there is none that is known.
    pub fn of(headers: &HeaderMap) -> Self {
        let Some(said) = headers::get(headers, &CRITICALITY) else { return Self::default() };
        let named = |class: &Self| said.as_bytes().eq_ignore_ascii_case(class.name().as_bytes());
        Self::ALL.into_iter().find(named).unwrap_or_default()
    }
}

impl From<Criticality> for Class {
    #[inline]
    fn from(criticality: Criticality) -> Self {
        match criticality {
            Criticality::Sheddable => Self::Sheddable,
            Criticality::SheddablePlus => Self::SheddablePlus,
            Criticality::Critical => Self::Critical,
            Criticality::CriticalPlus => Self::CriticalPlus,
        }
    }
}
