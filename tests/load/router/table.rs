//! Figures to a table.

use crate::{
    clients::{Client, Figures},
    configuration::Candidate,
};
use serde::Serialize;
use std::fmt::Write;

#[derive(Debug, Serialize)]
pub(crate) struct Row {
    candidate: &'static str,
    client: &'static str,
    switches: u64,
    /// Without and with switches.
    quiet: Figures,
    busy: Figures,
}

impl Row {
    /// Says so if the measurement is worth little: without switches nothing may fail.
    pub(crate) fn new(
        candidate: Candidate,
        client: Client,
        switches: u64,
        quiet: Figures,
        busy: Figures,
    ) -> Self {
        let row = Self {
            candidate: candidate.title(),
            client: client.title(),
            switches,
            quiet,
            busy,
        };
        if row.quiet.lost + row.quiet.errors > 0 {
            eprintln!(
                "{} under {}: requests fail without a switch, too: {:?}",
                row.candidate, row.client, row.quiet
            );
        }
        row
    }

    fn failed(&self) -> u64 {
        self.busy.lost + self.busy.errors
    }

    /// Failures a million requests.
    fn share(&self) -> f64 {
        self.failed() as f64 * 1e6 / self.busy.sent.max(1) as f64
    }
}

/// The first candidate is the one that the others are compared with.
pub(crate) fn render(rows: &[Row]) -> String {
    let mut text = String::from(
        "| client | router | switches | requests | lost | errors | closed idle | of plain reload | p99, ms | p99 without switches, ms |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for client in Client::ALL {
        let of_client = rows.iter().filter(|row| row.client == client.title());
        let mut plain = None;
        for row in of_client {
            let plain = *plain.get_or_insert(row.share());
            let ratio = match (plain > 0.0, row.failed()) {
                (true, _) => format!("{:.2}", row.share() / plain),
                (false, 0) => "0 of 0".into(),
                (false, failed) => format!("{failed} of 0"),
            };
            let closed = row.busy.closed.map_or("–".into(), |closed| closed.to_string());
            writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {closed} | {ratio} | {:.1} | {:.1} |",
                row.client,
                row.candidate,
                row.switches,
                row.busy.sent,
                row.busy.lost,
                row.busy.errors,
                row.busy.p99_ms,
                row.quiet.p99_ms
            )
            .expect("a text takes everything");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(candidate: Candidate, client: Client, sent: u64, lost: u64, errors: u64) -> Row {
        let figures = |lost, errors| Figures {
            sent,
            lost,
            errors,
            closed: None,
            p99_ms: 1.0,
        };
        Row::new(candidate, client, 20, figures(0, 0), figures(lost, errors))
    }

    #[test]
    fn shares_are_beside_that_of_the_first_candidate() {
        let rows = [
            row(Candidate::Front, Client::Wrk, 1000, 10, 0),
            row(Candidate::Front, Client::Hey, 1000, 0, 0),
            row(Candidate::Behind, Client::Wrk, 500, 5, 5),
            row(Candidate::Behind, Client::Hey, 500, 0, 3),
            row(Candidate::Map, Client::Wrk, 500, 0, 0),
            row(Candidate::Map, Client::Hey, 500, 0, 0),
        ];
        let table = render(&rows);
        let ratios: Vec<&str> = table
            .lines()
            .skip(2)
            .filter_map(|line| line.split(" | ").nth(7))
            .collect();
        assert_eq!(
            ratios,
            ["1.00", "2.00", "0.00", "0 of 0", "3 of 0", "0 of 0"],
            "{table}"
        );
    }
}
