//! [`Adaptation`]: which components needed most adaptation.

use std::{cmp::Ordering, fmt};

use crate::{
    observe::AdapterInfo,
    report::{grid::Grid, record::RunRecord, sentence},
};

/// Ranks of a part of the model: a module type over all layers, a layer, or a third of the layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartChange {
    /// `up_proj`, `layer 3`, `middle third (layers 10–19)`.
    pub name: String,
    /// Number of its adapters.
    pub adapters: usize,
    /// Sum of their ranks at the start.
    pub before: usize,
    /// Sum of their ranks now.
    pub after: usize,
}

impl PartChange {
    /// Ranks gained; negative where ranks were lost.
    pub fn gained(&self) -> i64 {
        self.after as i64 - self.before as i64
    }

    /// Mean rank at the start and now.
    pub fn means(&self) -> (f64, f64) {
        let mean = |sum: usize| sum as f64 / self.adapters.max(1) as f64;
        (mean(self.before), mean(self.after))
    }

    /// Orders by rank relative to the start, the greatest gain first, exactly.
    pub(super) fn by_relative_gain(&self, other: &Self) -> Ordering {
        let ours = self.after as u128 * other.before as u128;
        let theirs = other.after as u128 * self.before as u128;
        theirs.cmp(&ours)
    }
}

/// What can be said of a run's ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Movement {
    /// The run wrote no adapters.
    Unknown,
    /// No rank update was scheduled.
    NotScheduled,
    /// Updates were scheduled, none was reached.
    NotReached,
    /// Updates happened, every adapter has the rank that it started with.
    None,
    /// Ranks moved.
    Some,
    /// Every gate is zero at the end, wherever ranks went.
    AllZero,
}

/// Where ranks went, which is where the task needed adaptation. [`Display`](fmt::Display) says it
/// in a sentence or two.
///
/// A module type's or a layer's need is read from the rank that it gained relative to its start.
/// That is what L1RA's gates decide: a rank is pruned where its gate is not held by the loss, and
/// given where gates are large. It is one run's answer; another seed may give another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adaptation {
    /// Whether ranks moved.
    pub movement: Movement,
    /// Module types, the greatest relative gain first.
    pub modules: Vec<PartChange>,
    /// Layers with a number, in order.
    pub layers: Vec<PartChange>,
    /// First, middle and last third of six layers or more; empty for fewer.
    pub thirds: Vec<PartChange>,
    /// Every adapter by its path, the greatest gain of ranks first.
    pub adapters: Vec<PartChange>,
    /// Rank updates that happened.
    pub updates: usize,
    /// The step at which the record ends, if that is before the run's end.
    pub cut_off: Option<usize>,
}

/// Fewest layers that are told by thirds.
const LAYERS_FOR_THIRDS: usize = 6;

/// Which components of the run needed most adaptation.
pub fn most_adapted(record: &RunRecord) -> Adaptation {
    let mut adaptation = Adaptation {
        movement: Movement::Unknown,
        modules: Vec::new(),
        layers: Vec::new(),
        thirds: Vec::new(),
        adapters: Vec::new(),
        updates: record.updates.len(),
        cut_off: (!record.is_complete()).then(|| record.last_step()),
    };
    let (Some(start), Some(table)) = (&record.start, record.ranks()) else {
        return adaptation;
    };
    if start.adapters.is_empty() {
        return adaptation;
    }
    let after: Vec<usize> = table.entries.iter().map(|entry| entry.after).collect();
    let parts = Parts {
        grid: Grid::new(&start.adapters),
        adapters: &start.adapters,
        after: &after,
    };
    adaptation.movement = match record.updates.len() {
        _ if record.has_no_gate() => Movement::AllZero,
        _ if table.entries.iter().any(|e| e.before != e.after) => Movement::Some,
        0 if start.update_steps.is_empty() => Movement::NotScheduled,
        0 => Movement::NotReached,
        _ => Movement::None,
    };
    adaptation.modules = parts.modules();
    adaptation.layers = parts.layers();
    adaptation.thirds = thirds(&parts);
    adaptation.adapters = parts.each();
    adaptation
}

struct Parts<'a> {
    grid: Grid,
    adapters: &'a [AdapterInfo],
    after: &'a [usize],
}

impl Parts<'_> {
    fn sum(&self, name: String, members: impl Iterator<Item = usize>) -> PartChange {
        let mut part = PartChange {
            name,
            adapters: 0,
            before: 0,
            after: 0,
        };
        for member in members {
            part.adapters += 1;
            part.before += self.adapters.get(member).map_or(0, |adapter| adapter.rank);
            part.after += self.after.get(member).copied().unwrap_or(0);
        }
        part
    }

    fn modules(&self) -> Vec<PartChange> {
        let names = self.grid.modules.iter().enumerate();
        let mut modules: Vec<PartChange> = names
            .map(|(module, name)| self.sum(name.clone(), self.grid.of_module(module)))
            .collect();
        modules.sort_by(PartChange::by_relative_gain);
        modules
    }

    /// Indices and numbers of the layers that have one.
    fn numbered(&self) -> Vec<(usize, usize)> {
        let layers = self.grid.layers.iter().enumerate();
        layers
            .filter_map(|(index, layer)| layer.map(|number| (index, number)))
            .collect()
    }

    fn layers(&self) -> Vec<PartChange> {
        let layers = self.numbered().into_iter();
        layers
            .map(|(index, number)| self.sum(format!("layer {number}"), self.grid.of_layer(index)))
            .collect()
    }

    fn each(&self) -> Vec<PartChange> {
        let paths = self.adapters.iter().enumerate();
        let mut each: Vec<PartChange> = paths
            .map(|(index, adapter)| self.sum(adapter.path.clone(), std::iter::once(index)))
            .collect();
        each.sort_by_key(|part| std::cmp::Reverse(part.gained()));
        each
    }
}

fn thirds(parts: &Parts<'_>) -> Vec<PartChange> {
    let layers = parts.numbered();
    if layers.len() < LAYERS_FOR_THIRDS {
        return Vec::new();
    }
    let third = |index: usize, name: &str| {
        let of_third = layers.iter().enumerate();
        let of_third: Vec<(usize, usize)> = of_third
            .filter(|(place, _)| place * 3 / layers.len() == index)
            .map(|(_, layer)| *layer)
            .collect();
        let number = |layer: Option<&(usize, usize)>| layer.map_or(0, |(_, number)| *number);
        let (first, last) = (number(of_third.first()), number(of_third.last()));
        let members = of_third
            .iter()
            .flat_map(|(layer, _)| parts.grid.of_layer(*layer));
        parts.sum(format!("{name} third (layers {first}–{last})"), members)
    };
    vec![third(0, "first"), third(1, "middle"), third(2, "last")]
}

impl fmt::Display for Adaptation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&sentence::say(self))
    }
}
