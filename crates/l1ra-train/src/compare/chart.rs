//! The charts of `compare.html`, of the report's parts.

use crate::{
    compare::{Estimate, Row, Table},
    report::chart::{
        Chart,
        plot::{Area, Plot, legend, title},
        scale::with_room,
    },
};

const SIZE: (f64, f64) = (560.0, 360.0);
/// Colours of lines that there are, after which they come again with dashes.
const COLOURS: usize = 7;

fn class(arm: usize) -> String {
    let dash = if arm < COLOURS { "" } else { " lc-dash" };
    format!("lc-line lc-s{}{dash}", arm % COLOURS)
}

fn area(arms: usize) -> Area {
    Area {
        left: 62.0,
        top: 34.0 + 18.0 * arms.div_ceil(PER_LINE) as f64,
        right: SIZE.0 - 16.0,
        bottom: SIZE.1 - 46.0,
    }
}

/// Entries of a legend in a line.
const PER_LINE: usize = 3;

fn legends(arms: &[String]) -> String {
    let mut text = String::new();
    for (line, names) in arms.chunks(PER_LINE).enumerate() {
        let classes: Vec<String> = (0..names.len())
            .map(|i| class(line * PER_LINE + i))
            .collect();
        let entries = classes.iter().zip(names);
        let entries: Vec<(&str, &str)> = entries.map(|(c, n)| (c.as_str(), n.as_str())).collect();
        text += &legend(4.0, 36.0 + 18.0 * line as f64, &entries);
    }
    text
}

/// Eval loss over the parameters at the end: a line a policy through its means, a circle a seed.
pub(super) fn losses(table: &Table) -> Option<Chart> {
    let arms = table.arms();
    let results = table.rows.iter().flat_map(|row| table.results_of(row));
    let parameters: Vec<f64> = results.map(|result| log(result.parameters[1])).collect();
    let x = with_room(parameters.iter().copied())?;
    let y = with_room(table.rows.iter().flat_map(|row| row.losses.iter().copied()))?;
    let unit = "adapter parameters at the end";
    let mut plot = Plot::with_ticks(area(arms.len()), x, y, &log_ticks(x), unit);
    for (index, arm) in arms.iter().enumerate() {
        let rows = table.rows.iter().filter(|row| row.policy == *arm);
        let mean = |row: &Row| Some((row.parameters[1].log10(), row.loss?.mean));
        let mut means: Vec<(f64, f64)> = rows.clone().filter_map(mean).collect();
        means.sort_by(|a, b| a.0.total_cmp(&b.0));
        plot.line(&class(index), &means);
        let of_row = |row| table.results_of(row).into_iter();
        let seeds = rows.flat_map(of_row).filter_map(|result| {
            let loss = result.loss?;
            Some((log(result.parameters[1]), loss))
        });
        let seeds: Vec<(f64, f64)> = seeds.collect();
        plot.dots(&format!("{} lc-thin", class(index)), &seeds, 3.0);
    }
    plot.push(&title(
        4.0,
        16.0,
        "Eval loss",
        "each policy at its best rate",
    ));
    plot.push(&legends(&arms));
    let (body, data) = plot.finish();
    Some(Chart {
        name: "losses",
        label: "Eval loss over adapter parameters at the end, by policy".into(),
        size: SIZE,
        body,
        plots: vec![data],
    })
}

fn log(parameters: usize) -> f64 {
    (parameters.max(1) as f64).log10()
}

/// 1, 2 and 5 times powers of ten between two logarithms; where they are few, all multiples; where these
/// are few as well, two values near the ends.
fn log_ticks([low, high]: [f64; 2]) -> Vec<(f64, String)> {
    let within = |steps: &[f64]| -> Vec<f64> {
        let powers = (low.floor() as i32)..=(high.ceil() as i32);
        let values = powers.flat_map(|power| steps.iter().map(move |s| s * 10_f64.powi(power)));
        let inside = |value: &f64| (low..=high).contains(&value.log10());
        values.filter(inside).collect()
    };
    let multiples: Vec<f64> = (1..10).map(f64::from).collect();
    let ends = || [0.1, 0.9].map(|share| 10_f64.powf(low + share * (high - low)));
    let values = [within(&[1.0, 2.0, 5.0]), within(&multiples)]
        .into_iter()
        .find(|values| values.len() > 2)
        .unwrap_or_else(|| ends().to_vec());
    let name = |value: f64| match value {
        v if v >= 1e6 => format!("{} M", significant(v / 1e6)),
        v if v >= 1e3 => format!("{} k", significant(v / 1e3)),
        v => significant(v),
    };
    values
        .into_iter()
        .map(|value| (value.log10(), name(value)))
        .collect()
}

/// Three digits at least, none of them an idle zero after the point.
fn significant(value: f64) -> String {
    let digits = if value >= 100.0 { 0 } else { 1 };
    let text = format!("{value:.digits$}");
    text.strip_suffix(".0").map_or(text.clone(), String::from)
}

/// Paired differences to the baseline with their intervals, by rank.
pub(super) fn differences(table: &Table) -> Option<Chart> {
    let arms: Vec<String> = table.arms();
    let others = arms.iter().enumerate().skip(1);
    let ranks = &table.grid.ranks;
    let ends = |difference: &Estimate| {
        let half = difference.half.unwrap_or(0.0);
        [difference.mean - half, difference.mean + half]
    };
    let found = table.rows.iter().filter_map(|row| row.difference.as_ref());
    let all: Vec<f64> = found.flat_map(ends).collect();
    if all.is_empty() {
        return None;
    }
    let y = with_room(all.into_iter().chain([0.0]))?;
    let x = [-0.5, ranks.len() as f64 - 0.5];
    let ticks: Vec<(f64, String)> = ranks
        .iter()
        .enumerate()
        .map(|(index, rank)| (index as f64, format!("r = {rank}")))
        .collect();
    let area = area(arms.len());
    let mut plot = Plot::with_ticks(area, x, y, &ticks, "initial rank");
    plot.level("lc-budget", 0.0);
    let room = 0.5 / arms.len() as f64;
    for (index, arm) in others {
        for (column, rank) in ranks.iter().enumerate() {
            let row = table
                .rows
                .iter()
                .find(|row| row.policy == *arm && row.rank == *rank);
            let Some(difference) = row.and_then(|row| row.difference.as_ref()) else {
                continue;
            };
            let at = column as f64 + (index as f64 - arms.len() as f64 / 2.0) * room;
            let [low, high] = ends(difference);
            if difference.half.is_some() {
                plot.line(&class(index), &[(at, low), (at, high)]);
                for end in [low, high] {
                    let cap = room / 4.0;
                    plot.line(&class(index), &[(at - cap, end), (at + cap, end)]);
                }
            }
            plot.dots(&class(index), &[(at, difference.mean)], 4.0);
        }
    }
    let unit = format!("to {}, 95 % interval; below 0 is better", table.baseline);
    plot.push(&title(4.0, 16.0, "Difference of eval loss", &unit));
    plot.push(&legends(&arms));
    let (body, data) = plot.finish();
    Some(Chart {
        name: "differences",
        label: format!(
            "Paired differences of eval loss to {}, by rank",
            table.baseline
        ),
        size: SIZE,
        body,
        plots: vec![data],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_of_a_logarithm() {
        let names = |low: f64, high: f64| -> Vec<String> {
            let ticks = log_ticks([low.log10(), high.log10()]);
            ticks.into_iter().map(|(_, name)| name).collect()
        };
        assert_eq!(
            names(9e3, 2.2e5).join(", "),
            "10 k, 20 k, 50 k, 100 k, 200 k"
        );
        assert_eq!(names(39e3, 75e3).join(", "), "40 k, 50 k, 60 k, 70 k");
        assert_eq!(names(163_152.0, 184_656.0).join(", "), "165 k, 182 k");
    }
}
