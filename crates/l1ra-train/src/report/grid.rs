//! [`Grid`]: adapters by layer and module type.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::observe::AdapterInfo;

/// Where each adapter stands: one row a module type, one column a layer.
///
/// The layer is the first number in a path. The module type is the path's last part; if two
/// adapters would then share a cell, as experts of one layer do, it is the part of the path after
/// the layer, or else the whole path with the layer left out. Where that would leave a grid almost
/// empty, a module type is the whole path, and there are no layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    /// Module types, in the order in which they first occur.
    pub(crate) modules: Vec<String>,
    /// Layers, in order; `None` for adapters without one.
    pub(crate) layers: Vec<Option<usize>>,
    /// Of each adapter, its module type's and its layer's index.
    pub(crate) places: Vec<(usize, usize)>,
    /// The adapter at each place.
    cells: BTreeMap<(usize, usize), usize>,
    /// Adapters of each module type, and of each layer.
    of_modules: Vec<Vec<usize>>,
    of_layers: Vec<Vec<usize>>,
}

/// Most cells of a grid for each adapter in it.
const MAX_CELLS: usize = 64;

type Name = fn(&str) -> (Option<usize>, String);

impl Grid {
    /// The places of `adapters`.
    pub(crate) fn new(adapters: &[AdapterInfo]) -> Self {
        let ways: [Name; 3] = [last_part, after_layer, around_layer];
        let named = ways
            .iter()
            .map(|way| adapters.iter().map(|a| way(&a.path)).collect::<Vec<_>>())
            .find(|names| names.iter().collect::<HashSet<_>>().len() == names.len());
        let whole = || adapters.iter().map(|a| (None, a.path.clone())).collect();
        let grid = Self::of_names(named.unwrap_or_else(whole));
        if grid.modules.len() * grid.layers.len() > MAX_CELLS * adapters.len() {
            return Self::of_names(whole());
        }
        grid
    }

    fn of_names(names: Vec<(Option<usize>, String)>) -> Self {
        let layers: BTreeSet<Option<usize>> = names.iter().map(|(layer, _)| *layer).collect();
        let mut grid = Self {
            modules: Vec::new(),
            of_layers: vec![Vec::new(); layers.len()],
            layers: layers.into_iter().collect(),
            places: Vec::with_capacity(names.len()),
            cells: BTreeMap::new(),
            of_modules: Vec::new(),
        };
        let mut rows: HashMap<String, usize> = HashMap::new();
        for (adapter, (layer, name)) in names.into_iter().enumerate() {
            let row = *rows.entry(name).or_insert_with_key(|name| {
                grid.modules.push(name.clone());
                grid.of_modules.push(Vec::new());
                grid.modules.len() - 1
            });
            let column = grid.layers.binary_search(&layer).unwrap_or(0);
            grid.places.push((row, column));
            grid.cells.entry((row, column)).or_insert(adapter);
            let both = [(&mut grid.of_modules, row), (&mut grid.of_layers, column)];
            for (members, index) in both {
                if let Some(members) = members.get_mut(index) {
                    members.push(adapter);
                }
            }
        }
        grid
    }

    /// The adapter at a place, if there is one.
    pub(crate) fn at(&self, module: usize, layer: usize) -> Option<usize> {
        self.cells.get(&(module, layer)).copied()
    }

    /// The adapters of a module type.
    pub(crate) fn of_module(&self, module: usize) -> impl Iterator<Item = usize> + '_ {
        self.of_modules.get(module).into_iter().flatten().copied()
    }

    /// The adapters of a layer.
    pub(crate) fn of_layer(&self, layer: usize) -> impl Iterator<Item = usize> + '_ {
        self.of_layers.get(layer).into_iter().flatten().copied()
    }

    /// Mean over the adapters of a module type.
    pub(crate) fn module_mean(&self, module: usize, ranks: &[usize]) -> f64 {
        let of_module = self.of_module(module).filter_map(|a| ranks.get(a));
        let (count, sum) = of_module.fold((0_usize, 0), |(n, sum), rank| (n + 1, sum + rank));
        sum as f64 / count.max(1) as f64
    }

    /// What a layer is called.
    pub(crate) fn layer_name(&self, layer: usize) -> String {
        match self.layers.get(layer) {
            Some(Some(number)) => number.to_string(),
            _ => "–".into(),
        }
    }
}

/// Index and value of the first part that is a number.
fn layer_part(path: &str) -> Option<(usize, usize)> {
    let mut parts = path.split('.').enumerate();
    parts.find_map(|(index, part)| part.parse().ok().map(|layer| (index, layer)))
}

fn last_part(path: &str) -> (Option<usize>, String) {
    let layer = layer_part(path).map(|(_, layer)| layer);
    (layer, path.rsplit('.').next().unwrap_or(path).to_owned())
}

fn after_layer(path: &str) -> (Option<usize>, String) {
    match layer_part(path) {
        Some((index, layer)) => {
            let rest: Vec<&str> = path.split('.').skip(index + 1).collect();
            (Some(layer), rest.join("."))
        }
        None => (None, path.to_owned()),
    }
}

fn around_layer(path: &str) -> (Option<usize>, String) {
    match layer_part(path) {
        Some((index, layer)) => {
            let mut parts: Vec<&str> = path.split('.').collect();
            if let Some(part) = parts.get_mut(index) {
                *part = "*";
            }
            (Some(layer), parts.join("."))
        }
        None => (None, path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(paths: &[&str]) -> Grid {
        let adapter = |path: &&str| AdapterInfo {
            path: (*path).into(),
            d_in: 4,
            d_out: 4,
            rank: 2,
        };
        Grid::new(&paths.iter().map(adapter).collect::<Vec<_>>())
    }

    #[test]
    fn the_last_part_names_the_module() {
        let grid = grid(&[
            "model.layers.0.self_attn.q_proj",
            "model.layers.0.mlp.up_proj",
            "model.layers.10.self_attn.q_proj",
            "model.layers.2.self_attn.q_proj",
        ]);
        assert_eq!(grid.modules, ["q_proj", "up_proj"]);
        assert_eq!(grid.layers, [Some(0), Some(2), Some(10)]);
        assert_eq!(grid.places, [(0, 0), (1, 0), (0, 2), (0, 1)]);
        assert_eq!(grid.at(0, 2), Some(2));
        assert_eq!(grid.at(1, 2), None);
    }

    #[test]
    fn experts_and_towers_have_cells_of_their_own() {
        let experts = grid(&["layers.3.experts.0.w1", "layers.3.experts.1.w1"]);
        assert_eq!(experts.modules, ["experts.0.w1", "experts.1.w1"]);
        let towers = grid(&["text.layers.0.q", "vision.layers.0.q"]);
        assert_eq!(towers.modules, ["text.layers.*.q", "vision.layers.*.q"]);
        let odd = grid(&["a.1.b", "a.01.b"]);
        assert_eq!(odd.modules, ["a.1.b", "a.01.b"]);
        assert_eq!(odd.layers, [None]);
    }

    #[test]
    fn a_grid_that_would_be_empty_is_a_list() {
        let paths: Vec<String> = (0..200).map(|at| format!("layers.{at}.m{at}")).collect();
        let grid = grid(&paths.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((grid.modules.len(), grid.layers.len()), (200, 1));
    }

    #[test]
    fn a_model_without_layers() {
        let grid = grid(&["encoder", "head"]);
        assert_eq!(grid.layers, [None]);
        assert_eq!(grid.layer_name(0), "–");
        assert!((grid.module_mean(1, &[2, 5]) - 5.0).abs() < 1e-12);
    }
}
