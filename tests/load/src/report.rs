//! Outcomes of single requests to the figures of all.

use crate::{
    Failure,
    answer::Answer,
    percentile::{microseconds, percentile},
};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

/// `sent` = `answered` + `lost`; what failed before a byte went out was not sent.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Requests of which at least one byte went out.
    pub sent: u64,
    /// Those that got a whole answer, whatever its status.
    pub answered: u64,
    /// Those that were sent and got no whole answer.
    pub lost: u64,
    /// Everything that failed, lost or not sent.
    pub failed: BTreeMap<Failure, u64>,
    /// Why no connection came about: of each kind the first one, in words.
    pub words: BTreeMap<Failure, String>,
    pub statuses: BTreeMap<u16, u64>,
    /// How often the counted header had which value; answers without it are under the empty one.
    pub values: BTreeMap<String, u64>,
    /// Connections that the server had closed before the next request was written, and that were seen in time and replaced. A client
    /// that does not look before it writes would have lost these requests too.
    pub closed_idle: u64,
    /// From when the request was due (at a rate) or sent to the end of the answer.
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub seconds: f64,
}

impl Report {
    /// Requests that a person in front of the service would call failed: no answer, or one of the server's own fault.
    pub fn failures(&self) -> u64 {
        let errors: u64 = self.statuses.range(500..).map(|(_, count)| count).sum();
        self.failed.values().sum::<u64>() + errors
    }
}

#[derive(Default)]
pub(crate) struct Tally {
    answered: u64,
    lost: u64,
    failed: BTreeMap<Failure, u64>,
    words: BTreeMap<Failure, String>,
    statuses: BTreeMap<u16, u64>,
    values: BTreeMap<String, u64>,
    closed_idle: u64,
    latencies: Vec<u32>,
}

impl Tally {
    pub(crate) fn add(&mut self, outcome: Result<Answer, Failure>, took: Duration, counts_values: bool) {
        match outcome {
            Ok(answer) => {
                self.answered += 1;
                *self.statuses.entry(answer.status).or_default() += 1;
                if counts_values {
                    *self.values.entry(answer.counted.unwrap_or_default()).or_default() += 1;
                }
                self.latencies.push(microseconds(took));
            }
            Err(failure) => {
                self.lost += u64::from(failure.is_loss());
                *self.failed.entry(failure).or_default() += 1;
            }
        }
    }

    /// A connection that did not come about.
    pub(crate) fn unconnected(&mut self, (failure, words): (Failure, String)) {
        *self.failed.entry(failure).or_default() += 1;
        self.words.entry(failure).or_insert(words);
    }

    pub(crate) fn closed_idle(&mut self) {
        self.closed_idle += 1;
    }

    pub(crate) fn report(mut self, lasted: Duration) -> Report {
        self.latencies.sort_unstable();
        Report {
            sent: self.answered + self.lost,
            answered: self.answered,
            lost: self.lost,
            failed: self.failed,
            words: self.words,
            statuses: self.statuses,
            values: self.values,
            closed_idle: self.closed_idle,
            p50_ms: percentile(&self.latencies, 50),
            p99_ms: percentile(&self.latencies, 99),
            max_ms: percentile(&self.latencies, 100),
            seconds: lasted.as_secs_f64(),
        }
    }
}
