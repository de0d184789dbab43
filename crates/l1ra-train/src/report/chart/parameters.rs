//! Adapter parameters and total rank over updates, beside the budget.

use l1ra_core::BudgetUnit;

use crate::{
    observe::RunStart,
    report::{
        chart::{
            Chart, Format, PlotData, Series,
            plot::{Area, Plot, legend, title},
            scale::with_room,
        },
        curve::Point,
        history::History,
    },
};

const WIDTH: f64 = 480.0;

/// Two plots, parameters above ranks; the budget is drawn in the one of its unit.
pub(in crate::report) fn parameters(
    history: &History,
    start: &RunStart,
    last_step: usize,
) -> Chart {
    let over_time = |value: &dyn Fn(&[usize]) -> usize| -> Vec<Point> {
        let moments = history.moments.iter();
        moments
            .map(|moment| (moment.step as f64, value(&moment.ranks) as f64))
            .collect()
    };
    let counts = over_time(&|ranks| start.parameters(ranks));
    let ranks = over_time(&|ranks| ranks.iter().sum());
    let budget = |unit: BudgetUnit| (start.unit == unit).then_some(start.budget as f64);
    let (above, first) = part(
        (24.0, 128.0),
        ("Adapter parameters", "A, gates and B"),
        counts,
        budget(BudgetUnit::Parameters),
        (last_step as f64, ""),
    );
    let (below, second) = part(
        (196.0, 274.0),
        ("Total rank", "over all adapters"),
        ranks,
        budget(BudgetUnit::Ranks),
        (last_step as f64, "optimizer step"),
    );
    Chart {
        name: "parameters",
        label: "Adapter parameters and total rank over optimizer steps, with the budget".into(),
        size: (WIDTH, 320.0),
        body: above + &below,
        plots: vec![first, second],
    }
}

fn part(
    (top, bottom): (f64, f64),
    (name, unit): (&str, &str),
    points: Vec<Point>,
    budget: Option<f64>,
    (end, x_unit): (f64, &str),
) -> (String, PlotData) {
    let area = Area {
        left: 58.0,
        top: top + 10.0,
        right: WIDTH - 20.0,
        bottom,
    };
    let values = points.iter().map(|point| point.1).chain(budget);
    let domain = with_room(values).unwrap_or([0.0, 1.0]);
    let mut plot = Plot::new(area, [0.0, end], domain, true, x_unit);
    plot.steps("lc-line lc-s0", &points, end);
    plot.push(&title(4.0, top - 8.0, name, unit));
    plot.tell(Series {
        name: name.to_lowercase(),
        format: Format::Count,
        holds: true,
        points,
    });
    // Last, so that it shows on a curve that keeps to it.
    if let Some(budget) = budget {
        plot.level("lc-line lc-budget", budget);
        let entry = ("lc-line lc-budget", "budget");
        plot.push(&legend(WIDTH - 92.0, top - 8.0, &[entry]));
        plot.tell(Series {
            name: "budget".into(),
            format: Format::Count,
            holds: true,
            points: vec![(0.0, budget)],
        });
    }
    plot.finish()
}
