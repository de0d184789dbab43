//! What the page's script has to know, as JSON.

use serde_json::{Map, Value, json};

use crate::report::{
    chart::{PlotData, tallest_bar},
    charts::Charts,
    history::{History, Moment, SHADES},
    record::RunRecord,
};

/// JSON for a `script` element: with `<`, `>` and `&` written as escapes, no text in it can end the
/// element.
pub(super) fn json(record: &RunRecord, charts: &Charts) -> String {
    let plots: Map<String, Value> = charts
        .plotted()
        .map(|chart| {
            (
                chart.name.to_owned(),
                chart.plots.iter().map(plot).collect(),
            )
        })
        .collect();
    let value = json!({
        "plots": plots,
        "ranks": charts.history.as_ref().map(|history| ranks(history, record)),
    });
    let text = value.to_string();
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

/// Points as flat lists, with no more digits than anybody can see.
fn plot(plot: &PlotData) -> Value {
    let series: Vec<Value> = plot
        .series
        .iter()
        .map(|series| {
            let x: Vec<f64> = series.points.iter().map(|point| point.0).collect();
            let y: Vec<f64> = series.points.iter().map(|point| short(point.1)).collect();
            json!({"name": series.name, "format": series.format, "holds": series.holds, "x": whole(&x), "y": y})
        })
        .collect();
    json!({"area": plot.area, "x": plot.x, "y": plot.y, "series": series})
}

fn whole(steps: &[f64]) -> Vec<u64> {
    steps.iter().map(|step| *step as u64).collect()
}

/// Seven digits.
fn short(value: f64) -> f64 {
    format!("{value:.6e}").parse().unwrap_or(value)
}

fn ranks(history: &History, record: &RunRecord) -> Value {
    let mut before: &[usize] = history.start();
    let mut moments = Vec::new();
    for moment in &history.moments {
        moments.push(moment_value(history, record, before, moment));
        before = &moment.ranks;
    }
    json!({
        "start": history.start(),
        "modules": history.grid.places.iter().map(|place| place.0).collect::<Vec<_>>(),
        "layers": history.grid.places.iter().map(|place| place.1).collect::<Vec<_>>(),
        "scale": history.scale,
        "shades": SHADES,
        "tallest": tallest_bar(history),
        "moments": moments,
    })
}

/// A moment by the ranks that changed since the one before it.
fn moment_value(history: &History, record: &RunRecord, before: &[usize], moment: &Moment) -> Value {
    let pairs = moment.ranks.iter().zip(before).enumerate();
    let changes: Vec<(usize, usize)> = pairs
        .filter(|(_, (rank, before))| rank != before)
        .map(|(adapter, (rank, _))| (adapter, *rank))
        .collect();
    let start = record.start.as_ref();
    json!({
        "label": moment.label,
        "step": moment.step,
        "total": moment.ranks.iter().sum::<usize>(),
        "moved": history.moved(moment),
        "parameters": start.map(|start| start.parameters(&moment.ranks)),
        "changes": changes,
        "gates": moment.gates.as_ref().map(|gates| &gates.0),
    })
}
