//! Owns rounds in alternating order, and medians.

use std::time::Duration;

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// `count` of something in this time, a second.
#[allow(clippy::cast_precision_loss, reason = "counts of a benchmark")]
pub fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// A line of the table: each round's rates of ours and of the ceiling, and the median of their ratios.
pub fn compare(what: &str, ours: &[f64], ceiling_name: &str, ceiling: &[f64]) {
    let list = |values: &[f64]| {
        let rounded: Vec<String> = values.iter().map(|value| format!("{value:.0}")).collect();
        rounded.join(", ")
    };
    let ratios: Vec<f64> = ours.iter().zip(ceiling).map(|(ours, ceiling)| ours / ceiling).collect();
    println!(
        "{what}: {:.0}/s ({}); {ceiling_name}: {:.0}/s ({}); ratio {:.2} ({})",
        median(ours.to_vec()),
        list(ours),
        median(ceiling.to_vec()),
        list(ceiling),
        median(ratios.clone()),
        ratios
            .iter()
            .map(|ratio| format!("{ratio:.2}"))
            .collect::<Vec<_>>()
            .join(", "),
    );
}
