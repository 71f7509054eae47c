//! The results by round.

use std::{collections::BTreeMap, fmt};

use crate::{
    figures::{median, quantile},
    rows::{Compare, Row},
};

/// Both sides of a row in one round, measured back to back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) ours: f64,
    /// 0 if there is no other side.
    pub(crate) theirs: f64,
}

/// The result of a row.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) samples: Vec<Sample>,
    /// The reason why there are no more samples.
    pub(crate) trouble: Option<Trouble>,
}

/// Why a row has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The product lacks the feature.
    NotThereYet,
    /// The measurement failed.
    Failed(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotThereYet => f.write_str("not there yet"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Trouble {}

/// The results by row name.
pub(crate) type Results = BTreeMap<&'static str, Outcome>;

impl Outcome {
    /// The median of our side.
    pub(crate) fn ours(&self) -> f64 {
        median(&self.samples.iter().map(|sample| sample.ours).collect::<Vec<_>>())
    }

    /// The median of the other side.
    pub(crate) fn theirs(&self) -> f64 {
        median(&self.samples.iter().map(|sample| sample.theirs).collect::<Vec<_>>())
    }

    /// Compares both sides in each round.
    pub(crate) fn compared(&self, compare: Compare) -> Vec<f64> {
        let each = |sample: &Sample| match compare {
            Compare::Rates => sample.ours / sample.theirs,
            Compare::Waits => sample.theirs / sample.ours,
            Compare::Alone => sample.ours,
        };
        self.samples.iter().map(each).collect()
    }

    /// The median, minimum and maximum of the rounds.
    pub(crate) fn spread(&self, compare: Compare) -> (f64, f64, f64) {
        let compared = self.compared(compare);
        (median(&compared), quantile(&compared, 0), quantile(&compared, 100))
    }

    /// Whether the target is met; `None` if there is no target or no result.
    pub(crate) fn is_met(&self, row: &Row) -> Option<bool> {
        if self.samples.is_empty() || self.trouble.is_some() {
            return None;
        }
        let (middle, ..) = self.spread(row.compare);
        row.wanted.map(|wanted| if row.compare.is_ratio() { middle >= wanted } else { middle <= wanted })
    }
}
