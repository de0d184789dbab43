//! The charts of a report, as SVG.
//!
//! One chart is drawn once and used twice: in the page, where the page's style sheet colours it, and
//! as a file of its own, which carries that style sheet. Colours follow the reader's light or dark
//! preference in both.

mod gates;
mod heat;
mod loss;
mod modules;
mod parameters;
pub(crate) mod plot;
pub(crate) mod scale;
mod strip;

use serde::Serialize;

pub(super) use gates::{gates, tallest as tallest_bar};
pub(super) use heat::heat;
pub(super) use loss::{gradient_norm, learning_rate, loss};
pub(super) use modules::modules;
pub(super) use parameters::parameters;
pub(super) use strip::{strip, strip_size};

/// Style of everything inside an SVG; also part of the page's style.
pub(crate) const STYLE: &str = include_str!("../chart.css");

/// Most points of a curve.
pub(crate) const POINTS: usize = 2_000;

/// A drawn chart.
pub(crate) struct Chart {
    /// `loss`, `ranks`, …: the name of its file, and of the chart in the page.
    pub(crate) name: &'static str,
    /// What it shows, for readers who do not see it.
    pub(crate) label: String,
    /// Width and height.
    pub(crate) size: (f64, f64),
    /// Elements, without the `svg` around them.
    pub(crate) body: String,
    /// Where values are, for the page's script.
    pub(crate) plots: Vec<PlotData>,
}

/// Where a plot lies in its chart and what it shows.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PlotData {
    /// Left, top, right, bottom.
    pub(crate) area: [f64; 4],
    /// Values at the left and the right edge.
    pub(crate) x: [f64; 2],
    /// Values at the bottom and the top edge.
    pub(crate) y: [f64; 2],
    /// The curves.
    pub(crate) series: Vec<Series>,
}

/// A curve.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Series {
    /// What it is called.
    pub(crate) name: String,
    /// How its values are written.
    pub(crate) format: Format,
    /// Whether a value holds until the next one.
    pub(crate) holds: bool,
    /// Its points.
    pub(crate) points: Vec<(f64, f64)>,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// `3.8100`.
    Loss,
    /// `2.0e-3`.
    Rate,
    /// `8.3`.
    Mean,
    /// `187,280`.
    Count,
}

impl Chart {
    /// The chart as an element of a page.
    pub(crate) fn inline(&self) -> String {
        let (name, (width, height)) = (self.name, self.size);
        let label = escape(&self.label);
        format!(
            "<svg class=\"lc-chart\" data-chart=\"{name}\" viewBox=\"0 0 {width} {height}\" \
             role=\"img\" aria-label=\"{label}\">{}</svg>",
            self.body
        )
    }

    /// The chart as a file.
    pub(crate) fn file(&self) -> String {
        let (width, height) = self.size;
        let label = escape(&self.label);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"lc-chart\" width=\"{width}\" \
             height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
             aria-label=\"{label}\">\n<title>{label}</title>\n<style>\n{STYLE}</style>\n\
             <rect class=\"lc-paper\" width=\"{width}\" height=\"{height}\"/>\n{}</svg>\n",
            self.body
        )
    }
}

/// Text that is safe in HTML and SVG, in an element or an attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Not allowed in XML, whichever way it is written.
            letter if letter.is_control() => safe.push('\u{fffd}'),
            letter => safe.push(letter),
        }
    }
    safe
}

/// At most `most` letters of a name.
pub(crate) fn shortened(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return name.to_owned();
    }
    name.chars()
        .take(most.saturating_sub(1))
        .chain(['…'])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_escaped() {
        assert_eq!(
            escape("</script><img onerror='x' a=\"b\">&\u{1}"),
            "&lt;/script&gt;&lt;img onerror=&#39;x&#39; a=&quot;b&quot;&gt;&amp;\u{fffd}"
        );
    }

    #[test]
    fn long_names_are_shortened() {
        assert_eq!(shortened("q_proj", 6), "q_proj");
        assert_eq!(shortened("gate_proj", 6), "gate_…");
    }
}
