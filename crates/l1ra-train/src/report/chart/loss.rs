//! Loss, gradient norm and learning rate over steps.

use crate::{
    observe::StepMetrics,
    report::{
        chart::{
            Chart, Format, POINTS, Series,
            plot::{Area, Plot, legend, text, title},
            scale::with_room,
        },
        curve::{Point, finite, smooth, smoothing_window, thin},
        record::RunRecord,
    },
};

const WIDTH: f64 = 480.0;
const EVALUATION: &str = "lc-line lc-thin lc-dash lc-s1";

/// Training and evaluation loss.
pub(in crate::report) fn loss(record: &RunRecord) -> Chart {
    let raw = finite(record.steps.iter().map(|s| (s.step as f64, s.loss)));
    let evaluated = record.evaluations.iter();
    let evaluated = finite(evaluated.map(|e| (e.step as f64, e.result.loss)));
    let window = smoothing_window(raw.len());
    let smoothed = thin(&smooth(&raw, window), POINTS);
    let raw = thin(&raw, POINTS);
    let size = (WIDTH, 320.0);
    let head = title(4.0, 16.0, "Loss", "nats per target token");
    let values = raw.iter().chain(&evaluated).map(|point| point.1);
    let Some(domain) = with_room(values) else {
        return empty("loss", "Loss", size, &head);
    };
    let area = Area {
        left: 44.0,
        top: 54.0,
        right: WIDTH - 20.0,
        bottom: size.1 - 46.0,
    };
    let x = [0.0, record.last_step() as f64];
    let mut plot = Plot::new(area, x, domain, false, "optimizer step");
    let mean = format!("mean of {window} steps");
    let mut entries = Vec::new();
    if window > 1 {
        entries.extend([("lc-line lc-faint", "training"), ("lc-line lc-s0", &mean)]);
        plot.line("lc-line lc-faint", &raw);
        plot.line("lc-line lc-s0", &smoothed);
        plot.tell(curve("training", &raw));
        plot.tell(curve(&mean, &smoothed));
    } else {
        entries.push(("lc-line lc-s0", "training"));
        plot.line("lc-line lc-s0", &raw);
        plot.tell(curve("training", &raw));
    }
    let evaluations = thin(&evaluated, POINTS);
    // Nothing is known between evaluations: the dots are the data.
    plot.line(EVALUATION, &evaluations);
    if evaluations.len() <= 200 {
        let radius = if evaluations.len() > 20 { 2.5 } else { 3.5 };
        plot.dots("lc-dot lc-f1", &evaluations, radius);
    }
    plot.tell(curve("evaluation", &evaluations));
    entries.push((EVALUATION, "evaluation"));
    plot.push(&head);
    plot.push(&legend(4.0, 36.0, &entries));
    let (body, data) = plot.finish();
    Chart {
        name: "loss",
        label: "Training and evaluation loss over optimizer steps".into(),
        size,
        body,
        plots: vec![data],
    }
}

fn curve(name: &str, points: &[Point]) -> Series {
    Series {
        name: name.into(),
        format: Format::Loss,
        holds: false,
        points: points.to_vec(),
    }
}

/// Learning rate of A and B.
pub(in crate::report) fn learning_rate(record: &RunRecord) -> Chart {
    let name = ("rate", "Learning rate", "of A and B");
    small(record, name, Format::Rate, |step| step.lr)
}

/// Gradient norm before clipping.
pub(in crate::report) fn gradient_norm(record: &RunRecord) -> Chart {
    let name = ("norm", "Gradient norm", "before clipping");
    small(record, name, Format::Loss, |step| step.grad_norm)
}

fn small(
    record: &RunRecord,
    (name, heading, unit): (&'static str, &str, &str),
    format: Format,
    value: fn(&StepMetrics) -> f64,
) -> Chart {
    let points = finite(record.steps.iter().map(|s| (s.step as f64, value(s))));
    let points = thin(&points, POINTS);
    let size = (WIDTH, 156.0);
    let head = title(4.0, 16.0, heading, unit);
    // From zero: what matters is how large the values are beside each other.
    let values = points.iter().map(|point| point.1);
    let Some([low, high]) = with_room(values.chain([0.0])) else {
        return empty(name, heading, size, &head);
    };
    if points.is_empty() {
        return empty(name, heading, size, &head);
    }
    let area = Area {
        left: 52.0,
        top: 30.0,
        right: WIDTH - 20.0,
        bottom: size.1 - 26.0,
    };
    let domain = [
        if low < 0.0 && values_are_positive(&points) {
            0.0
        } else {
            low
        },
        high,
    ];
    let x = [0.0, record.last_step() as f64];
    let mut plot = Plot::new(area, x, domain, false, "");
    plot.line("lc-line lc-thin lc-s0", &points);
    plot.tell(Series {
        name: heading.to_lowercase(),
        format,
        holds: false,
        points,
    });
    plot.push(&head);
    let (body, data) = plot.finish();
    Chart {
        name,
        label: format!("{heading} over optimizer steps"),
        size,
        body,
        plots: vec![data],
    }
}

fn values_are_positive(points: &[Point]) -> bool {
    points.iter().all(|point| point.1 >= 0.0)
}

fn empty(name: &'static str, heading: &str, size: (f64, f64), head: &str) -> Chart {
    let note = text("lc-label", 4.0, 44.0, "The run wrote no step.");
    Chart {
        name,
        label: format!("{heading}: the run wrote no step"),
        size: (size.0, 64.0),
        body: format!("{head}{note}"),
        plots: Vec::new(),
    }
}
