//! The tables of the page.

use serde::Serialize;

use crate::report::{
    UpdateRecord,
    adapted::{Adaptation, PartChange},
    history::{History, Moment},
    number::{grouped, means, signed},
    record::RunRecord,
};

#[derive(Serialize)]
pub(super) struct Update {
    label: String,
    step: String,
    pruned: String,
    grown: String,
    total: String,
    parameters: String,
}

/// What each update did.
pub(super) fn updates(record: &RunRecord, history: &History) -> Vec<Update> {
    let parameters = |ranks: &[usize]| {
        let start = record.start.as_ref();
        start.map_or(0, |start| start.parameters(ranks))
    };
    let moments = history.moments.iter().enumerate();
    let update = |(index, moment): (usize, &Moment)| {
        let update = index
            .checked_sub(1)
            .and_then(|index| record.updates.get(index));
        let count = |of: fn(&UpdateRecord) -> usize| {
            update.map_or(String::new(), |update| grouped(of(update)))
        };
        Update {
            label: moment.label.clone(),
            step: grouped(moment.step),
            pruned: count(|update| update.spare),
            grown: count(|update| update.grown.len()),
            total: grouped(moment.ranks.iter().sum()),
            parameters: grouped(parameters(&moment.ranks)),
        }
    };
    moments.map(update).collect()
}

#[derive(Serialize)]
pub(super) struct Module {
    name: String,
    adapters: usize,
    before: String,
    after: String,
    gained: String,
}

/// Mean ranks of module types.
pub(super) fn modules(adaptation: &Adaptation) -> Vec<Module> {
    let modules = adaptation.modules.iter();
    let module = |part: &PartChange| {
        let (before, after) = part.means();
        let (before, after) = means(before, after);
        Module {
            name: part.name.clone(),
            adapters: part.adapters,
            before,
            after,
            gained: signed(part.gained()),
        }
    };
    modules.map(module).collect()
}

#[derive(Serialize)]
pub(super) struct Statistics {
    names: Vec<&'static str>,
    rows: Vec<(String, Vec<String>)>,
}

/// Statistics of both data sets in one table, a row a name.
pub(super) fn statistics(record: &RunRecord) -> Option<Statistics> {
    let sets = [
        ("training", &record.info.train),
        ("evaluation", &record.info.eval),
    ];
    let sets: Vec<_> = sets
        .into_iter()
        .filter(|(_, set)| !set.is_empty())
        .collect();
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in sets.iter().flat_map(|(_, set)| set.iter()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let value = |set: &[(String, serde_json::Value)], name: &String| {
        let found = set.iter().find(|(other, _)| other == name);
        found.map_or(String::new(), |(_, value)| statistic(value))
    };
    let row = |name: &&String| {
        let values = sets.iter().map(|(_, set)| value(set, name)).collect();
        ((*name).clone(), values)
    };
    (!names.is_empty()).then(|| Statistics {
        names: sets.iter().map(|(name, _)| *name).collect(),
        rows: names.iter().map(row).collect(),
    })
}

fn statistic(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(values) => {
            let values: Vec<String> = values.iter().map(statistic).collect();
            values.join(", ")
        }
        value => match (value.as_u64(), value.as_f64()) {
            (Some(whole), _) => grouped(whole as usize),
            (None, Some(number)) => {
                let text = format!("{number:.4}");
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
            _ => value.to_string(),
        },
    }
}
