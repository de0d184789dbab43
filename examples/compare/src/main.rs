//! A comparison of rank policies from a program of your own: the calls that `l1ra compare` makes.
//!
//! ```text
//! cargo run --release -p compare
//! cargo run --release -p compare -- recipes/tiny.toml train.steps=100
//! ```
#![allow(clippy::print_stdout)] // A program: its output is the point.

use std::path::PathBuf;

use anyhow::Result;
use l1ra_train::{
    RecipeFile,
    compare::{CompareProgress, Comparison, Grid, Place, RunResult, policy},
    recipe::Override,
};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let recipe = arguments.next().unwrap_or("recipes/tiny.toml".into());
    let mut overrides = vec![Override::set("output=runs/compare-example")?];
    for text in arguments {
        overrides.push(Override::set(&text)?);
    }
    let file = RecipeFile::load(&PathBuf::from(recipe), &overrides)?;

    let grid = Grid {
        policies: vec![policy("lora")?, policy("l1ra")?],
        ranks: vec![2, 4],
        lrs: vec![2e-3, 5e-3],
        seeds: 3,
        ..Grid::of(&file.recipe)
    };
    println!("{grid}");
    // All input is checked here, the recipe of every run included; weights are loaded by `run`.
    let comparison = Comparison::prepare(&file, grid, false, &())?;
    let table = comparison.run(&mut Lines)?;

    println!("{}", table.markdown());
    for row in &table.rows {
        if row
            .difference
            .is_some_and(|difference| difference.excludes_zero())
        {
            println!(
                "{} at r = {} differs from {}",
                row.policy, row.rank, table.baseline
            );
        }
    }
    Ok(())
}

/// Says every run that ends.
struct Lines;

impl CompareProgress for Lines {
    fn ends(&mut self, place: &Place, result: &RunResult) {
        let loss = result.loss.unwrap_or(f64::NAN);
        println!(
            "{}/{}  {}  {loss:.4}",
            place.run,
            place.runs,
            result.cell.name()
        );
    }
}
