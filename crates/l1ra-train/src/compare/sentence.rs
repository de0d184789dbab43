//! What a table shows, in sentences: never more than its intervals say.

use crate::{
    compare::{Edge, Estimate, Row, Table},
    plural::counted,
};

/// Parameters that differ by less are taken as equal.
const EQUAL: f64 = 0.01;

/// The sentences of a table.
pub(super) fn sentences(table: &Table) -> Vec<String> {
    let mut sentences = Vec::new();
    for row in &table.rows {
        sentences.extend(compared(row, table));
    }
    sentences.extend(caution(table));
    sentences.extend(at_edge(table, Edge::Lowest, "lowest", "lower"));
    sentences.extend(at_edge(table, Edge::Highest, "highest", "higher"));
    sentences.extend(failures(table));
    sentences
}

/// `−0.0040 ± 0.0120`, a true minus and a sign for both.
pub(super) fn signed(estimate: &Estimate) -> String {
    let sign = if estimate.mean < 0.0 { '−' } else { '+' };
    let mean = estimate.mean.abs();
    match estimate.half {
        Some(half) => format!("{sign}{mean:.4} ± {half:.4}"),
        None => format!("{sign}{mean:.4}"),
    }
}

fn compared(row: &Row, table: &Table) -> Option<String> {
    let difference = row.difference.as_ref()?;
    let (policy, rank, baseline) = (&row.policy, row.rank, &table.baseline);
    let (start, numbers) = (format!("{policy}, r = {rank}: "), signed(difference));
    let said = match difference.half {
        None => format!(
            "with one seed, the difference to {baseline} is {numbers}, and shows nothing yet"
        ),
        Some(_) if !difference.excludes_zero() => {
            format!("no difference to {baseline} could be shown: {numbers}")
        }
        Some(_) if difference.mean < 0.0 => {
            format!("a lower eval loss than {baseline}: {numbers}")
        }
        Some(_) => format!("a higher eval loss than {baseline}: {numbers}"),
    };
    Some(start + &said + &unequal(row, table) + ".")
}

/// What parameters may have to do with it.
fn unequal(row: &Row, table: &Table) -> String {
    let mut rows = table.rows.iter();
    let base = rows.find(|base| base.policy == table.baseline && base.rank == row.rank);
    let Some(base) = base.filter(|base| base.parameters[1] > 0.0) else {
        return String::new();
    };
    let share = row.parameters[1] / base.parameters[1] - 1.0;
    let more = if share > 0.0 { "more" } else { "fewer" };
    match share.abs() {
        share if share < EQUAL => String::new(),
        share => format!(
            " (with {:.0} % {more} parameters at the end)",
            share * 100.0
        ),
    }
}

/// What holds for all rows.
fn caution(table: &Table) -> Vec<String> {
    let mut said = Vec::new();
    if table.grid.seeds == 1 {
        said.push("One seed shows nothing about noise; for an interval, take --seeds 5.".into());
    }
    if table.grid.lrs.len() == 1 {
        said.push(
            "With one learning rate, rates were not tuned: a policy may do better at another one."
                .into(),
        );
    }
    let intervals = table.rows.iter().filter_map(|row| row.difference?.half);
    let count = intervals.count();
    if count > 1 {
        said.push(format!(
            "{} with 95 % intervals, each by itself: of 20 such, one is expected to leave 0 out by chance.",
            counted(count, "difference")
        ));
    }
    said
}

fn at_edge(table: &Table, edge: Edge, which: &str, other: &str) -> Option<String> {
    let rows = table.rows.iter().filter(|row| row.edge == Some(edge));
    let rows: Vec<String> = rows
        .map(|row| format!("{} (r = {})", row.policy, row.rank))
        .collect();
    if rows.is_empty() {
        return None;
    }
    Some(format!(
        "The best rate is the {which} that was tried for {}; a {other} one may be better.",
        rows.join(", ")
    ))
}

fn failures(table: &Table) -> Option<String> {
    let failed: Vec<String> = table
        .results
        .iter()
        .filter(|result| result.loss.is_none())
        .map(|result| result.cell.name())
        .collect();
    if failed.is_empty() {
        return None;
    }
    Some(format!(
        "No eval loss, as the run ended with a number that is not finite or without an effect: {}. A rate \
         with such a run is not taken.",
        failed.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use crate::compare::table::tests::{grid, table};

    /// Sentences where `l1ra` is off by `by(seed)`.
    fn said(seeds: u64, lrs: &[f64], by: impl Fn(u64) -> f64) -> String {
        let of =
            |policy: &str, _: f64, seed| Some(3.0 + if policy == "l1ra" { by(seed) } else { 0.0 });
        table(&grid(lrs, seeds), of).sentences.join("\n")
    }

    #[test]
    fn an_interval_with_zero_in_it_is_no_gain() {
        let text = said(3, &[1e-3], |seed| seed as f64 * 0.01 - 0.014);
        insta::assert_snapshot!(text, @"
        l1ra, r = 2: no difference to fixed could be shown: −0.0040 ± 0.0248 (with 10 % more parameters at the end).
        With one learning rate, rates were not tuned: a policy may do better at another one.
        ");
    }

    #[test]
    fn one_without_it_is_said_with_its_direction() {
        let lower = said(3, &[1e-3], |seed| seed as f64 * 0.001 - 0.1);
        assert!(
            lower.contains("l1ra, r = 2: a lower eval loss than fixed: −0.0990 ± 0.0025"),
            "{lower}"
        );
        let higher = said(3, &[1e-3], |seed| seed as f64 * 0.001 + 0.1);
        assert!(
            higher.contains("a higher eval loss than fixed: +0.1010"),
            "{higher}"
        );
    }

    #[test]
    fn one_seed_shows_nothing() {
        let text = said(1, &[1e-3, 2e-3], |_| -0.5);
        insta::assert_snapshot!(text, @"
        l1ra, r = 2: with one seed, the difference to fixed is −0.5000, and shows nothing yet (with 10 % more parameters at the end).
        One seed shows nothing about noise; for an interval, take --seeds 5.
        The best rate is the lowest that was tried for fixed (r = 2), l1ra (r = 2); a lower one may be better.
        ");
    }
}
