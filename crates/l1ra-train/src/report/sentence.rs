//! An [`Adaptation`] in words. Every sentence has to be true of every run, so each case that needs
//! other words has them.

use std::cmp::Ordering;

use crate::report::{
    adapted::{Adaptation, Movement, PartChange},
    number::{counted, means},
};

/// Most names in a list of parts that come out equal.
const NAMED: usize = 3;

pub(super) fn say(adaptation: &Adaptation) -> String {
    let text = match adaptation.movement {
        Movement::Unknown => {
            return "The run wrote no adapters, so it does not tell where adaptation was needed."
                .into();
        }
        Movement::AllZero => {
            return "Every gate is zero at the end: the adapters change nothing, and the run does not \
                    tell where adaptation was needed."
                .into();
        }
        Movement::NotScheduled => {
            return "No rank update was scheduled, so every adapter kept the rank it started with \
                    and the run does not tell where adaptation was needed."
                .into();
        }
        Movement::NotReached => not_reached(adaptation),
        Movement::None => nothing_moved(adaptation),
        Movement::Some => moved(adaptation),
    };
    match adaptation.cut_off {
        Some(step) => format!("Up to step {step}, where the record ends: {text}"),
        None => text,
    }
}

fn not_reached(adaptation: &Adaptation) -> String {
    match adaptation.cut_off {
        Some(_) => "no rank update was reached, so the run does not tell where adaptation was \
                    needed."
            .into(),
        None => {
            "No rank update happened, so the run does not tell where adaptation was needed.".into()
        }
    }
}

fn nothing_moved(adaptation: &Adaptation) -> String {
    let updates = counted(adaptation.updates, "rank update");
    let text = format!(
        "no adapter ended with another rank than it started with, after {updates}, so the run does \
         not tell where adaptation was needed."
    );
    begin(adaptation, text)
}

/// A sentence begins with a capital, unless it follows on the remark that the record ends early.
fn begin(adaptation: &Adaptation, text: String) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) if adaptation.cut_off.is_none() => {
            first.to_uppercase().chain(letters).collect()
        }
        _ => text,
    }
}

fn moved(adaptation: &Adaptation) -> String {
    if let [adapter] = adaptation.adapters.as_slice() {
        let (path, before, after) = (&adapter.name, adapter.before, adapter.after);
        let text = format!("the one adapter, {path}, went from rank {before} to {after}.");
        return begin(adaptation, text);
    }
    let mut text = begin(adaptation, by_module(&adaptation.modules)) + ".";
    if let Some(layers) = by_layer(adaptation) {
        text.push_str(&format!(" {layers}."));
    }
    text
}

/// The parts that are equal to `part` in the order that `compare` gives.
fn equals<'a>(
    parts: &'a [PartChange],
    part: &PartChange,
    compare: impl Fn(&PartChange, &PartChange) -> Ordering,
) -> Vec<&'a PartChange> {
    let equal = parts
        .iter()
        .filter(|other| compare(part, other) == Ordering::Equal);
    equal.collect()
}

/// `a`, `a and b`, `a, b and c`.
fn list(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// `up_proj (mean rank 8.0 → 11.3)`; from the second on without the words.
fn with_means(parts: &[&PartChange], words: &str) -> String {
    let named = parts.iter().take(NAMED).enumerate().map(|(index, part)| {
        let (before, after) = part.means();
        let (before, after) = means(before, after);
        let words = if index == 0 { words } else { "" };
        format!("{} ({words}{before} → {after})", part.name)
    });
    let mut named: Vec<String> = named.collect();
    if parts.len() > NAMED {
        named.push(counted(parts.len() - NAMED, "other module type"));
    }
    list(&named)
}

fn by_module(modules: &[PartChange]) -> String {
    let (Some(top), Some(bottom)) = (modules.first(), modules.last()) else {
        return String::new();
    };
    if modules.len() == 1 {
        let (before, after) = top.means();
        let (before, after) = means(before, after);
        return format!(
            "all adapters are of one module type, {} (mean rank {before} → {after})",
            top.name
        );
    }
    let mut most = equals(modules, top, PartChange::by_relative_gain);
    let least = equals(modules, bottom, PartChange::by_relative_gain);
    if most.len() == modules.len() {
        let (before, after) = top.means();
        let (before, after) = means(before, after);
        return match most.iter().all(|part| part.means() == top.means()) {
            true => format!(
                "no module type needed more than another (mean rank {before} → {after} in each)"
            ),
            false => "no module type needed more than another, relative to its start".into(),
        };
    }
    if top.gained() <= 0 {
        let (most, least) = (with_means(&most, "mean rank "), with_means(&least, ""));
        return format!("no module type gained rank: most was kept in {most}, least in {least}");
    }
    most.extend(runners_up(modules, &most, bottom));
    let (most, least) = (with_means(&most, "mean rank "), with_means(&least, ""));
    format!("most adaptation was needed in {most}, least in {least}")
}

/// The module types after the `most` adapted ones that gained at least half as much, relative to
/// the start; none where a list with them would be long.
fn runners_up<'a>(
    modules: &'a [PartChange],
    most: &[&PartChange],
    bottom: &PartChange,
) -> Vec<&'a PartChange> {
    let gain = |part: &PartChange| part.gained() as f64 / part.before.max(1) as f64;
    let (Some(top), Some(next)) = (most.first(), modules.get(most.len())) else {
        return Vec::new();
    };
    let near = gain(next) > 0.0 && gain(next) >= gain(top) / 2.0;
    let next_ones = equals(modules, next, PartChange::by_relative_gain);
    let is_last = next.by_relative_gain(bottom) == Ordering::Equal;
    if near && !is_last && most.len() + next_ones.len() <= NAMED {
        next_ones
    } else {
        Vec::new()
    }
}

fn by_gain(a: &PartChange, b: &PartChange) -> Ordering {
    b.gained().cmp(&a.gained())
}

fn best(parts: &[PartChange]) -> Vec<&PartChange> {
    let top = parts.iter().min_by(|a, b| by_gain(a, b));
    top.map_or(Vec::new(), |top| equals(parts, top, by_gain))
}

/// `gained most (12 ranks)`, `lost least (3 ranks)`, for one part or several.
fn gain_words(best: &[&PartChange]) -> String {
    let gained = best.first().map_or(0, |part| part.gained());
    let each = if best.len() > 1 { " each" } else { "" };
    let ranks = counted(gained.unsigned_abs() as usize, "rank");
    match gained.cmp(&0) {
        Ordering::Greater => format!("gained most ({ranks}{each})"),
        Ordering::Equal if best.len() == 1 => "kept its ranks, the others lost some".into(),
        Ordering::Equal => "kept their ranks, the others lost some".into(),
        Ordering::Less => format!("lost least ({ranks}{each})"),
    }
}

fn by_layer(adaptation: &Adaptation) -> Option<String> {
    let thirds = third_clause(&adaptation.thirds);
    let layers = layer_clause(&adaptation.layers);
    match (thirds, layers) {
        (Some(thirds), Some(layers)) => Some(format!("By depth, {thirds}; among layers, {layers}")),
        (Some(thirds), None) => Some(format!("By depth, {thirds}")),
        (None, Some(layers)) => Some(format!("Among layers, {layers}")),
        (None, None) => None,
    }
}

fn third_clause(thirds: &[PartChange]) -> Option<String> {
    let best = best(thirds);
    if best.is_empty() {
        return None;
    }
    if best.len() == thirds.len() {
        return Some("no third of the layers gained more than another".into());
    }
    let names: Vec<String> = best
        .iter()
        .map(|third| format!("the {}", third.name))
        .collect();
    Some(format!("{} {}", list(&names), gain_words(&best)))
}

fn layer_clause(layers: &[PartChange]) -> Option<String> {
    if layers.len() < 2 {
        return None;
    }
    let best = best(layers);
    if best.len() == layers.len() {
        return Some("none gained more than another".into());
    }
    let names: Vec<String> = match best.len() {
        1..=NAMED => best.iter().map(|layer| layer.name.clone()).collect(),
        count => vec![counted(count, "layer")],
    };
    Some(format!("{} {}", list(&names), gain_words(&best)))
}
