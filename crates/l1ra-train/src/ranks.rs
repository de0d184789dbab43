//! The rank table: where ranks are, by layer and module.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::plural::counted;

/// Ranks of an adapter before and after a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankEntry {
    /// Path of the adapted layer.
    pub path: String,
    /// Rank at the start.
    pub before: usize,
    /// Rank at the end.
    pub after: usize,
}

/// Ranks of all adapters, shown as one row a layer and one column a module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankTable {
    /// One entry an adapter, in the module's order.
    pub entries: Vec<RankEntry>,
}

impl RankTable {
    /// Sum of ranks before and after.
    pub fn totals(&self) -> (usize, usize) {
        let sum = |rank: fn(&RankEntry) -> usize| self.entries.iter().map(rank).sum();
        (sum(|entry| entry.before), sum(|entry| entry.after))
    }

    /// Number of ranks that ended in another adapter than they began in.
    pub fn moved(&self) -> usize {
        self.entries
            .iter()
            .map(|entry| entry.after.saturating_sub(entry.before))
            .sum()
    }
}

impl RankTable {
    /// A line an adapter.
    fn list(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("adapter")?;
        for entry in &self.entries {
            write!(f, "\n{}  {} → {}", entry.path, entry.before, entry.after)?;
        }
        self.total(f)
    }

    fn total(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = self.totals();
        let (after, moved) = (counted(after, "rank"), self.moved());
        write!(f, "\ntotal {before} → {after}, {moved} moved")
    }
}

/// Splits `model.layers.3.self_attn.q_proj` into 3 and `q_proj`; a path without a number has no
/// layer.
pub(crate) fn split(path: &str) -> (Option<usize>, &str) {
    let layer = path.split('.').find_map(|part| part.parse().ok());
    (layer, path.rsplit('.').next().unwrap_or(path))
}

/// Most cells of a table for each adapter in it; where there would be more, adapters are a list.
const MAX_CELLS: usize = 64;

impl fmt::Display for RankTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut columns: Vec<&str> = Vec::new();
        let mut known: BTreeSet<&str> = BTreeSet::new();
        let mut rows: BTreeSet<Option<usize>> = BTreeSet::new();
        let mut cells: BTreeMap<(Option<usize>, &str), (usize, usize)> = BTreeMap::new();
        for entry in &self.entries {
            let (layer, module) = split(&entry.path);
            if known.insert(module) {
                columns.push(module);
            }
            rows.insert(layer);
            let cell = cells.entry((layer, module)).or_default();
            *cell = (cell.0 + entry.before, cell.1 + entry.after);
        }
        if columns.len() * rows.len() > MAX_CELLS * self.entries.len() {
            return self.list(f);
        }
        write!(f, "{:>5}", "layer")?;
        columns
            .iter()
            .try_for_each(|column| write!(f, "{column:>11}"))?;
        for row in &rows {
            let name = row.map_or("-".to_string(), |layer| layer.to_string());
            write!(f, "\n{name:>5}")?;
            for column in &columns {
                let cell = cells.get(&(*row, *column)).map(|(before, after)| {
                    let change = *after as i64 - *before as i64;
                    if change == 0 {
                        after.to_string()
                    } else {
                        format!("{after} ({change:+})")
                    }
                });
                write!(f, "{:>11}", cell.unwrap_or_default())?;
            }
        }
        write!(f, "\n{:>5}", "mean")?;
        for column in &columns {
            let of_column = rows.iter().filter_map(|row| cells.get(&(*row, *column)));
            let (count, sum) = of_column.fold((0, 0), |(n, sum), cell| (n + 1, sum + cell.1));
            write!(f, "{:>11.1}", sum as f64 / f64::from(count))?;
        }
        self.total(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_moved() {
        let entry = |path: &str, before, after| RankEntry {
            path: path.into(),
            before,
            after,
        };
        let table = RankTable {
            entries: vec![
                entry("model.layers.0.self_attn.q_proj", 8, 6),
                entry("model.layers.0.mlp.up_proj", 8, 10),
                entry("model.layers.1.self_attn.q_proj", 8, 8),
                entry("model.layers.1.mlp.up_proj", 8, 8),
            ],
        };
        insta::assert_snapshot!(table, @r"
        layer     q_proj    up_proj
            0     6 (-2)    10 (+2)
            1          8          8
         mean        7.0        9.0
        total 32 → 32 ranks, 2 moved
        ");
    }
}
