//! Gates by size.

use crate::report::{
    chart::{
        Chart,
        plot::{place, text, title},
    },
    gates::GateBars,
    history::{History, Moment},
    number::grouped,
};

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 250.0;
const BASE: f64 = HEIGHT - 46.0;
const TOP: f64 = 50.0;
const LEFT: f64 = 6.0;

/// The last gates that the run wrote, as bars with their counts. The tallest bar of any moment
/// sets the height, so that the page's slider can redraw the bars. Gates above 1 have a bar only in
/// a run that has some: the `l1ra` policy keeps them in [0, 1].
pub(in crate::report) fn gates(history: &History) -> Chart {
    let shown = history
        .moments
        .iter()
        .rfind(|moment| moment.gates.is_some());
    let mut body = title(4.0, 16.0, "Gates", "number of ranks by gate");
    let size = (WIDTH, HEIGHT);
    let name = "gates";
    let Some((moment, bars)) = shown.and_then(|m| m.gates.as_ref().map(|bars| (m, bars))) else {
        body.push_str(&text("lc-label", 4.0, 44.0, "The run wrote no gates."));
        return Chart {
            name,
            label: "Gates: the run wrote none".into(),
            size: (WIDTH, 64.0),
            body,
            plots: Vec::new(),
        };
    };
    let mut all = history.moments.iter().filter_map(|m| m.gates.as_ref());
    let above = all.any(|bars| bars.0.last() > Some(&0));
    let shown = GateBars::BARS - usize::from(!above);
    let width = (WIDTH - 2.0 * LEFT) / shown as f64;
    let tallest = tallest(history);
    for (bar, count) in bars.0.iter().take(shown).enumerate() {
        body.push_str(&column(bar, *count, tallest, width));
    }
    body.push_str(&axis(width, above));
    Chart {
        name,
        label: format!("Ranks by the size of their gate, {}", when(moment)),
        size,
        body,
        plots: Vec::new(),
    }
}

/// The tallest bar of any moment.
pub(in crate::report) fn tallest(history: &History) -> usize {
    let bars = history.moments.iter().filter_map(|m| m.gates.as_ref());
    bars.map(GateBars::largest).max().unwrap_or(0).max(1)
}

fn when(moment: &Moment) -> String {
    format!("{} at step {}", moment.label, moment.step)
}

fn column(bar: usize, count: usize, tallest: usize, width: f64) -> String {
    let x = LEFT + bar as f64 * width;
    let height = (BASE - TOP) * count as f64 / tallest as f64;
    let range = GateBars::range(bar);
    let number = if count == 0 {
        String::new()
    } else {
        grouped(count)
    };
    let colour = if bar == 0 { "lc-f1" } else { "lc-f0" };
    let middle = x + width / 2.0;
    format!(
        "<g data-bar=\"{bar}\" data-range=\"{range}\" data-base=\"{BASE}\" data-height=\"{}\">\
         <title>gates {range}: {count}</title>\
         <rect class=\"lc-bar {colour}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>{}</g>",
        BASE - TOP,
        place(x + 1.0),
        place(BASE - height),
        place(width - 2.0),
        place(height),
        text("lc-count lc-middle", middle, BASE - height - 4.0, &number),
    )
}

fn axis(width: f64, above: bool) -> String {
    let (left, right, base) = (place(LEFT), place(WIDTH - LEFT), place(BASE));
    let mut axis = format!("<path class=\"lc-axis\" d=\"M{left} {base}H{right}\"/>");
    let under = |x: f64, name: &str| text("lc-tick lc-middle", x, BASE + 18.0, name);
    axis.push_str(&under(LEFT + width / 2.0, "≤ 0"));
    for fifth in 1..5 {
        let x = LEFT + width * (1.0 + 4.0 * f64::from(fifth));
        axis.push_str(&under(x, &format!("{:.1}", f64::from(fifth) / 5.0)));
    }
    let end = WIDTH - LEFT;
    axis.push_str(&if above {
        under(end - width / 2.0, "> 1")
    } else {
        text("lc-tick lc-end", end, BASE + 18.0, "1.0")
    });
    axis + &text("lc-label lc-middle", WIDTH / 2.0, BASE + 35.0, "gate")
}
