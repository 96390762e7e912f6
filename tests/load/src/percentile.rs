//! Latencies to percentiles.

use std::time::Duration;

/// Of times in microseconds that are sorted: the smallest one that so many hundredths do not exceed, in milliseconds.
pub(crate) fn percentile(sorted: &[u32], hundredths: usize) -> f64 {
    let rank = (sorted.len() * hundredths).div_ceil(100).max(1);
    sorted
        .get(rank - 1)
        .map_or(0.0, |microseconds| f64::from(*microseconds) / 1000.0)
}

pub(crate) fn microseconds(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_rank() {
        let times: Vec<u32> = (1..=200).map(|number| number * 1000).collect();
        assert_eq!(percentile(&times, 50), 100.0);
        assert_eq!(percentile(&times, 99), 198.0);
        assert_eq!(percentile(&times, 100), 200.0);
        assert_eq!(percentile(&[7000], 50), 7.0);
        assert_eq!(percentile(&[], 99), 0.0);
    }
}
