//! [`AdapterInspection`]: what an adapter's files hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use l1ra_core::{
    peft::{AdapterFiles, Layout, Reader, describe_adapter},
    walk::AdapterData,
};
use serde::Serialize;

use crate::{
    error::ModelError,
    inspect::{
        files,
        text::{bytes, grouped, line, table},
    },
};

/// What an adapter's files hold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AdapterInspection {
    /// The folder.
    pub path: PathBuf,
    /// The model that it was trained on, as the files name it.
    pub base_model: Option<String>,
    /// The lay-out that the files have the form of; `None`: plain PEFT, one rank for all.
    pub layout: Option<Layout>,
    /// `lora_alpha` of PEFT's configuration.
    pub alpha: f64,
    /// Smallest and largest scale of a module.
    pub scale: (f32, f32),
    /// Dropout that it was trained with.
    pub dropout: f64,
    /// Whether there is a sidecar with gates and ranks without padding.
    pub sidecar: bool,
    /// Adapted layers.
    pub modules: usize,
    /// Ranks of all modules together.
    pub total_rank: usize,
    /// Parameters: A, gates and B of all modules.
    pub parameters: u64,
    /// Module names, the columns of [`ranks`](Self::ranks).
    pub columns: Vec<String>,
    /// Ranks by layer.
    pub ranks: Vec<RankRow>,
    /// Ranks of modules outside all layers, by path: an output head.
    pub others: Vec<(String, usize)>,
    /// The gates, where a sidecar has them.
    pub gates: Option<GateSummary>,
    /// Who scales the files as PEFT does.
    pub readers: Vec<ReaderVerdict>,
    /// Names and bytes of the files.
    pub files: Vec<(String, u64)>,
}

/// Ranks of one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RankRow {
    /// Number of the layer.
    pub layer: usize,
    /// Rank of each column's module; `None`: no adapter.
    pub ranks: Vec<Option<usize>>,
}

/// The gates of all ranks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct GateSummary {
    /// Gates.
    pub count: usize,
    /// Those that are exactly zero: ranks that do nothing.
    pub zero: usize,
    /// Smallest.
    pub min: f32,
    /// Mean.
    pub mean: f32,
    /// Largest.
    pub max: f32,
}

/// Whether a program reads the adapter right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReaderVerdict {
    /// The program.
    pub reader: Reader,
    /// Whether it gives every module the scale that PEFT gives it.
    pub right: bool,
    /// How it scales, and how that is known.
    pub note: String,
}

pub(super) fn inspect(dir: &Path) -> Result<AdapterInspection, ModelError> {
    let described = describe_adapter(dir)?;
    let adapters = &described.set.adapters;
    let (columns, ranks, others) = ranks(adapters);
    let scales = || adapters.iter().map(|adapter| adapter.scale);
    let parameters = |a: &AdapterData| (a.rank() * (a.d_in + a.d_out + 1)) as u64;
    Ok(AdapterInspection {
        path: dir.into(),
        alpha: described.alpha,
        scale: (
            scales().reduce(f32::min).unwrap_or(0.0),
            scales().reduce(f32::max).unwrap_or(0.0),
        ),
        dropout: described.set.dropout,
        sidecar: described.has_sidecar,
        modules: adapters.len(),
        total_rank: adapters.iter().map(AdapterData::rank).sum(),
        parameters: adapters.iter().map(parameters).sum(),
        columns,
        ranks,
        others,
        gates: gates(&described),
        readers: readers(&described),
        files: files(dir)?,
        layout: described.layout,
        base_model: described.base_model,
    })
}

fn gates(described: &AdapterFiles) -> Option<GateSummary> {
    let adapters = &described.set.adapters;
    let all: Vec<f32> = adapters.iter().flat_map(|a| a.c.iter().copied()).collect();
    if !described.has_sidecar || all.is_empty() {
        return None;
    }
    Some(GateSummary {
        count: all.len(),
        zero: all.iter().filter(|gate| **gate == 0.0).count(),
        min: all.iter().copied().fold(f32::INFINITY, f32::min),
        mean: all.iter().sum::<f32>() / all.len() as f32,
        max: all.iter().copied().fold(f32::NEG_INFINITY, f32::max),
    })
}

fn readers(described: &AdapterFiles) -> Vec<ReaderVerdict> {
    let verdict = |(reader, right): &(Reader, bool)| ReaderVerdict {
        reader: *reader,
        right: *right,
        note: format!("{}; {}", reader.rule(), reader.checked()),
    };
    described.right_in.iter().map(verdict).collect()
}

/// The order in which a block has its modules; others come after them.
const ORDER: [&str; 7] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
];

/// Columns and rows of the table of ranks, and the modules that are in no layer.
fn ranks(adapters: &[AdapterData]) -> (Vec<String>, Vec<RankRow>, Vec<(String, usize)>) {
    let mut layers: BTreeMap<usize, BTreeMap<&str, usize>> = BTreeMap::new();
    let mut others = Vec::new();
    for adapter in adapters {
        match place(&adapter.path) {
            (Some(layer), module) => {
                layers
                    .entry(layer)
                    .or_default()
                    .insert(module, adapter.rank());
            }
            (None, _) => others.push((adapter.path.clone(), adapter.rank())),
        }
    }
    let names: BTreeSet<&str> = layers
        .values()
        .flat_map(|row| row.keys().copied())
        .collect();
    let mut columns: Vec<&str> = names.into_iter().collect();
    let known = |name: &str| ORDER.iter().position(|known| *known == name);
    columns.sort_by_key(|name| known(name).unwrap_or(ORDER.len()));
    let rows = layers.into_iter().map(|(layer, row)| RankRow {
        layer,
        ranks: columns.iter().map(|name| row.get(name).copied()).collect(),
    });
    let rows = rows.collect();
    (
        columns.into_iter().map(String::from).collect(),
        rows,
        others,
    )
}

/// The layer that a path names (`….layers.3.…`), and the last part of the path.
fn place(path: &str) -> (Option<usize>, &str) {
    let module = path.rsplit('.').next().unwrap_or(path);
    let mut parts = path.split('.').skip_while(|part| *part != "layers").skip(1);
    (parts.next().and_then(|number| number.parse().ok()), module)
}

impl fmt::Display for AdapterInspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(f, "adapter", self.path.display())?;
        line(
            f,
            "base model",
            self.base_model.as_deref().unwrap_or("(not named)"),
        )?;
        match self.layout {
            Some(layout) => line(f, "lay-out", layout)?,
            None => line(f, "lay-out", "plain PEFT, one rank for all")?,
        }
        line(f, "modules", self.modules)?;
        line(f, "total rank", grouped(self.total_rank as u64))?;
        line(f, "parameters", grouped(self.parameters))?;
        line(f, "alpha", self.alpha)?;
        let (least, most) = self.scale;
        if least == most {
            line(f, "scale", least)?;
        } else {
            line(f, "scale", format_args!("{least} to {most}"))?;
        }
        match &self.gates {
            Some(gates) => line(
                f,
                "gates",
                format_args!(
                    "{} of {} are zero; {:.3} to {:.3}, mean {:.3}",
                    gates.zero, gates.count, gates.min, gates.max, gates.mean
                ),
            )?,
            None => line(f, "gates", "folded into B (no sidecar)")?,
        }
        writeln!(f, "\nranks")?;
        let mut rows = vec![[vec!["layer".to_string()], self.columns.clone()].concat()];
        for row in &self.ranks {
            let cell = |rank: &Option<usize>| rank.map_or("-".into(), |rank| rank.to_string());
            let cells = row.ranks.iter().map(cell).collect();
            rows.push([vec![row.layer.to_string()], cells].concat());
        }
        table(f, &rows)?;
        for (path, rank) in &self.others {
            writeln!(f, "  {path}  {rank}")?;
        }
        writeln!(f, "\nreaders")?;
        for verdict in &self.readers {
            writeln!(
                f,
                "  {:<11}{}",
                verdict.reader.to_string(),
                verdict.summary()
            )?;
        }
        writeln!(f, "\nfiles")?;
        let rows: Vec<Vec<String>> = self
            .files
            .iter()
            .map(|(name, size)| vec![name.clone(), bytes(*size)])
            .collect();
        table(f, &rows)
    }
}

impl ReaderVerdict {
    fn summary(&self) -> String {
        let verdict = if self.right { "right" } else { "WRONG" };
        format!("{verdict}: {}", self.note)
    }
}
