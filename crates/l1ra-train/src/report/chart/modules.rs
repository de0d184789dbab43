//! Mean rank of each module type over updates.

use crate::report::{
    chart::{
        Chart, Format, Series,
        plot::{Area, Plot, place, text, title},
        scale::with_room,
        shortened,
    },
    curve::Point,
    history::History,
};

const WIDTH: f64 = 480.0;
/// Colours that can be told apart, then the same again with another dash.
const COLOURS: usize = 7;
/// Height of a name, and width of its letters, at the size that a narrow page shows.
const LABEL: f64 = 16.0;
const LETTER: f64 = 8.2;

/// A line a module type, named at its end.
pub(in crate::report) fn modules(history: &History, last_step: usize) -> Chart {
    let lines: Vec<(String, Vec<Point>)> = history
        .grid
        .modules
        .iter()
        .enumerate()
        .map(|(module, name)| (name.clone(), means(history, module)))
        .collect();
    let names: Vec<String> = lines.iter().map(|(name, _)| shortened(name, 18)).collect();
    let widest = names.iter().map(|name| name.chars().count()).max();
    let height = (lines.len() as f64 * LABEL + 90.0).max(320.0);
    let area = Area {
        left: 36.0,
        top: 34.0,
        right: WIDTH - 22.0 - widest.unwrap_or(0) as f64 * LETTER,
        bottom: height - 46.0,
    };
    let values = lines.iter().flat_map(|(_, points)| points.iter());
    let domain = with_room(values.map(|point| point.1)).unwrap_or([0.0, 1.0]);
    let x = [0.0, last_step as f64];
    let mut plot = Plot::new(area, x, domain, false, "optimizer step");
    let ends: Vec<f64> = lines
        .iter()
        .map(|(_, points)| plot.height(points.last().map_or(0.0, |point| point.1)))
        .collect();
    for (index, (name, points)) in lines.into_iter().enumerate() {
        let class = class(index);
        plot.steps(&format!("lc-line {class}"), &points, last_step as f64);
        plot.tell(Series {
            name,
            format: Format::Mean,
            holds: true,
            points,
        });
    }
    let places = spread(&ends, LABEL, area.top, area.bottom);
    for (index, name) in names.iter().enumerate() {
        let (end, label) = (ends.get(index), places.get(index));
        if let (Some(end), Some(label)) = (end, label) {
            plot.push(&end_label(index, area.right, *end, *label, name));
        }
    }
    plot.push(&title(4.0, 16.0, "Mean rank", "by module type"));
    let (body, data) = plot.finish();
    Chart {
        name: "modules",
        label: "Mean rank of each module type over optimizer steps".into(),
        size: (WIDTH, height),
        body,
        plots: vec![data],
    }
}

fn means(history: &History, module: usize) -> Vec<Point> {
    let moments = history.moments.iter();
    let mean = |ranks: &[usize]| history.grid.module_mean(module, ranks);
    moments
        .map(|moment| (moment.step as f64, mean(&moment.ranks)))
        .collect()
}

fn class(index: usize) -> String {
    let dash = match index / COLOURS {
        0 => "",
        1 => " lc-dash",
        _ => " lc-dots",
    };
    format!("lc-s{}{dash}", index % COLOURS)
}

/// A name beside the end of its line, and a thin line to it where it had to move.
fn end_label(index: usize, x: f64, end: f64, label: f64, name: &str) -> String {
    let class = class(index);
    let (from, end, to) = (place(x + 2.0), place(end), place(label));
    let leader = format!(
        "<path class=\"lc-line lc-thin {class}\" d=\"M{from} {end}L{} {to}h4\"/>",
        place(x + 9.0)
    );
    leader + &text("lc-label lc-ink", x + 17.0, label + 4.0, name)
}

/// Places close to `wanted` that are at least `gap` apart and, where they fit, between the bounds.
fn spread(wanted: &[f64], gap: f64, top: f64, bottom: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    let at = |index: usize| wanted.get(index).copied().unwrap_or(top);
    order.sort_by(|a, b| at(*a).total_cmp(&at(*b)));
    let mut places: Vec<f64> = Vec::with_capacity(order.len());
    for index in &order {
        let free = places.last().map_or(top, |last| last + gap);
        places.push(at(*index).max(free));
    }
    let mut limit = bottom;
    for place in places.iter_mut().rev() {
        *place = place.min(limit);
        limit = *place - gap;
    }
    let mut spread = vec![0.0; wanted.len()];
    for (index, place) in order.into_iter().zip(places) {
        if let Some(slot) = spread.get_mut(index) {
            *slot = place;
        }
    }
    spread
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_do_not_overlap() {
        let places = spread(&[100.0, 20.0, 101.0, 99.0], 15.0, 10.0, 110.0);
        let mut sorted = places.clone();
        sorted.sort_by(f64::total_cmp);
        assert!(
            sorted
                .windows(2)
                .all(|pair| pair[1] - pair[0] >= 15.0 - 1e-9),
            "{places:?}"
        );
        assert!(sorted[0] >= 10.0 && sorted[3] <= 110.0, "{places:?}");
        assert!((places[1] - 20.0).abs() < 1e-9);
        assert!(places[3] < places[0] && places[0] < places[2]);
    }
}
