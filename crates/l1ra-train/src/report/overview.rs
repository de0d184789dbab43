//! The numbers that matter first.

use serde::Serialize;

use crate::{
    eval::EvalResult,
    observe::duration,
    report::{
        number::{bytes, counted, grouped, step_seconds},
        record::RunRecord,
    },
};

/// A number of the run with its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Fact {
    pub(super) name: &'static str,
    /// The value before training, if it has one.
    pub(super) before: Option<String>,
    pub(super) value: String,
    /// What to know about it.
    pub(super) note: String,
}

impl Fact {
    fn new(name: &'static str, value: String, note: String) -> Self {
        Self {
            name,
            before: None,
            value,
            note,
        }
    }

    fn from(self, before: String) -> Self {
        Self {
            before: Some(before),
            ..self
        }
    }
}

/// The numbers of a run that it wrote, from `run.json` or else from the metrics.
pub(super) fn facts(record: &RunRecord) -> Vec<Fact> {
    let all = [
        eval_loss(record),
        perplexity(record),
        time(record),
        speed(record),
        memory(record),
        parameters(record),
        ranks(record),
        zero_gates(record),
    ];
    all.into_iter().flatten().collect()
}

/// The evaluation before training and the last one after some of it.
fn evaluations(record: &RunRecord) -> (Option<EvalResult>, Option<EvalResult>) {
    let seen = record.evaluations.as_slice();
    let first = seen.first().filter(|e| e.step == 0).map(|e| e.result);
    let last = seen.last().filter(|e| e.step > 0).map(|e| e.result);
    (record.info.before.or(first), record.info.after.or(last))
}

fn changed(
    record: &RunRecord,
    name: &'static str,
    value: impl Fn(EvalResult) -> String,
) -> Option<Fact> {
    match evaluations(record) {
        (Some(before), Some(after)) => {
            Some(Fact::new(name, value(after), String::new()).from(value(before)))
        }
        (None, Some(after)) => Some(Fact::new(name, value(after), String::new())),
        (Some(before), None) => Some(Fact::new(name, value(before), "before training".into())),
        (None, None) => None,
    }
}

fn eval_loss(record: &RunRecord) -> Option<Fact> {
    changed(record, "eval loss", |result| format!("{:.4}", result.loss))
}

fn perplexity(record: &RunRecord) -> Option<Fact> {
    changed(record, "perplexity", |result| {
        format!("{:.2}", result.perplexity)
    })
}

fn seconds(record: &RunRecord) -> Option<f64> {
    let last = record.steps.last().map(|step| step.seconds);
    record
        .info
        .seconds
        .or(last)
        .filter(|seconds| *seconds > 0.0)
}

fn time(record: &RunRecord) -> Option<Fact> {
    let seconds = seconds(record)?;
    let steps = record.last_step();
    let mut note = match steps {
        0 => String::new(),
        steps => format!(
            "{}, {} each",
            counted(steps, "step"),
            step_seconds(seconds / steps as f64)
        ),
    };
    if let Some(predicted) = record.info.predicted_step_seconds {
        note.push_str(&format!(" (predicted {})", step_seconds(predicted)));
    }
    Some(Fact::new("training", duration(seconds), note))
}

fn speed(record: &RunRecord) -> Option<Fact> {
    let seconds = seconds(record)?;
    let tokens = record.steps.iter().map(|step| step.tokens);
    let summed = tokens.fold(0, usize::saturating_add);
    let tokens = record.info.tokens.unwrap_or(summed);
    if tokens == 0 {
        return None;
    }
    let rate = (tokens as f64 / seconds).round() as usize;
    let note = format!("{} tokens", grouped(tokens));
    Some(Fact::new(
        "speed",
        format!("{} tokens/s", grouped(rate)),
        note,
    ))
}

fn memory(record: &RunRecord) -> Option<Fact> {
    let largest = record.steps.iter().map(|step| step.resident_bytes).max();
    let peak = record
        .info
        .peak_bytes
        .or(largest)
        .filter(|peak| *peak > 0)?;
    let mut note = "at its peak".to_owned();
    if let Some(predicted) = record.info.predicted_bytes {
        note.push_str(&format!(" (predicted {})", bytes(predicted)));
    }
    Some(Fact::new("memory", bytes(peak), note))
}

fn parameters(record: &RunRecord) -> Option<Fact> {
    let known = || {
        let start = record.start.as_ref()?;
        let table = record.ranks()?;
        let sum = |rank: fn(&crate::ranks::RankEntry) -> usize| {
            start.parameters(&table.entries.iter().map(rank).collect::<Vec<_>>())
        };
        Some([sum(|entry| entry.before), sum(|entry| entry.after)])
    };
    let [before, after] = record.info.parameters.or_else(known)?;
    let fact = Fact::new("parameters", grouped(after), "in adapters".into());
    Some(fact.from(grouped(before)))
}

fn ranks(record: &RunRecord) -> Option<Fact> {
    let table = record.ranks()?;
    let (before, after) = table.totals();
    let note = format!("in total, {} moved", grouped(table.moved()));
    Some(Fact::new("ranks", grouped(after), note).from(grouped(before)))
}

/// Ranks that are there and do nothing.
fn zero_gates(record: &RunRecord) -> Option<Fact> {
    let (zero, all) = record.zero_gates().filter(|(zero, _)| *zero > 0)?;
    let value = format!("{} of {} are zero", grouped(zero), grouped(all));
    let note = "these ranks have no effect".into();
    Some(Fact::new("gates", value, note))
}
