//! P15: from the order to stop until the plugin is dead, for one that waits in the host and leaves by itself, and for one that
//! computes for ever.

use crate::{
    project::{Project, Result, Shape},
    statistics::p99,
    table::{Quantity, Row},
};
use std::time::Duration;

const SAMPLES: u32 = 200;
const BOUND: Duration = Duration::from_millis(20);

pub(crate) fn all(project: &Project, rows: &mut Vec<Row>) -> Result<()> {
    for (with, what) in [("wait-ms: 60000", "waits"), ("spin: true", "computes for ever")] {
        let ready = project.ready(&Shape {
            stages: 1,
            is_chain: true,
            body: &format!("    uses: ./noop.wasm\n    with: {{ {with} }}\n"),
        })?;
        // At another moment between two ticks of the clock each time.
        let after =
            |sample| Duration::from_millis(5) + Duration::from_micros(u64::from(sample) * 137 % 5_000);
        let times = (0..SAMPLES).map(|sample| project.cancel(&ready, after(sample)));
        let times = times.collect::<Result<Vec<_>>>()?;
        rows.push(Row::at_most(
            "P15",
            format!("cancel → dead, a plugin that {what}, p99 of {SAMPLES}"),
            Quantity::Time(p99(&times)),
            Quantity::Time(BOUND),
        ));
    }
    Ok(())
}
