//! [`Live`]: a run in the terminal while it goes.
//!
//! | file | holds |
//! |---|---|
//! | `choice.rs` | [`terminal_observer`]: live or plain, and why |
//! | `state.rs`, `grid.rs`, `pace.rs` | [`LiveState`]: what is known of the run; no clock, no terminal |
//! | `draw/` | [`Dashboard`]: the state as a ratatui widget, for any terminal or program |
//! | `palette.rs` | [`Palette`]: colours, or marks |
//! | `painter.rs`, `screen.rs` | rows of the widget to a terminal's escape sequences |

mod choice;
mod draw;
mod grid;
mod pace;
mod painter;
mod palette;
mod screen;
mod state;

use std::{
    env, fmt, thread,
    time::{Duration, Instant},
};

use ratatui::{buffer::Buffer, layout::Rect, widgets::Widget};

pub use self::{
    choice::{is_live, terminal_observer},
    draw::Dashboard,
    palette::Palette,
    screen::Screen,
    state::{LiveState, RunLabels},
};
use self::{painter::Painter, screen::StandardError};
use crate::{
    callback::RankUpdate,
    checkpoint::Progress,
    error::TrainError,
    eval::EvalResult,
    observe::{Observer, RunStart, StepMetrics, plain},
    run::RunReport,
};

/// Shortest time between two frames of steps and evaluations.
const FRAME: Duration = Duration::from_millis(125);
/// The size that is assumed where the terminal does not say.
const USUAL_SIZE: (u16, u16) = (80, 24);
/// Larger terminals are used up to here.
const LARGEST_SIZE: (u16, u16) = (400, 200);

/// Shows a run at the end of the terminal's output, in place: progress, loss, speed, memory, and
/// the ranks as they move, layers × modules.
///
/// Evaluations and rank updates are also said in a line each, as [`Plain`](super::Plain) says
/// them, which scrolls away above the display. The last state stays on the screen when the run is
/// over, and what is written later follows it.
///
/// The terminal's modes are left alone: no alternate screen, no raw mode, the cursor in sight. So
/// there is nothing to restore, Ctrl-C is a signal as ever, and keys are nobody's but the
/// terminal's. What is typed or written by others meanwhile may cover part of the display until it
/// is painted again. Nothing is painted between two calls: the clock stands during a long step.
///
/// A terminal that goes away is no reason to stop a run: the display falls silent.
pub struct Live {
    state: LiveState,
    palette: Palette,
    painter: Painter,
    screen: Box<dyn Screen>,
    began: Instant,
    painted: Option<Instant>,
    /// Lines that are to go above the display.
    news: Vec<String>,
    silent: bool,
}

impl Live {
    /// A display on standard error, which should be a terminal: [`terminal_observer`] makes sure.
    pub fn new(labels: RunLabels) -> Self {
        let variable = |name| env::var(name).ok();
        let palette = Palette::choose(variable("NO_COLOR").as_deref(), variable("TERM").as_deref());
        Self::on(Box::new(StandardError::new()), labels, palette)
    }

    /// A display on another terminal.
    pub fn on(screen: Box<dyn Screen>, labels: RunLabels, palette: Palette) -> Self {
        Self {
            state: LiveState::new(labels),
            palette,
            painter: Painter::default(),
            screen,
            began: Instant::now(),
            painted: None,
            news: Vec::new(),
            silent: false,
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Paints unless that was done a moment ago.
    fn paint_in_time(&mut self) {
        if self.painted.is_none_or(|at| at.elapsed() >= FRAME) {
            self.paint();
        }
    }

    fn paint(&mut self) {
        if self.silent {
            return;
        }
        let size = self
            .screen
            .size()
            .filter(|(columns, rows)| *columns > 0 && *rows > 0);
        let size = size.unwrap_or(USUAL_SIZE);
        // The cursor needs a row below the display.
        let (columns, most) = (size.0.min(LARGEST_SIZE.0), size.1.min(LARGEST_SIZE.1) - 1);
        let area = Rect::new(0, 0, columns, most);
        let mut buffer = Buffer::empty(area);
        let board = Dashboard {
            state: &self.state,
            palette: self.palette,
        };
        board.render(area, &mut buffer);
        let height = board.height(columns, most);
        let reflows = self.screen.reflows();
        let text = self
            .painter
            .frame(&buffer, height, &self.news, size, reflows);
        self.news.clear();
        self.silent = self.screen.write(&text).is_err();
        self.painted = Some(Instant::now());
    }
}

impl Observer for Live {
    fn started(&mut self, start: &RunStart) -> Result<(), TrainError> {
        self.began = Instant::now();
        self.state.started(start, Duration::ZERO);
        self.paint();
        Ok(())
    }

    fn resumed(&mut self, progress: &Progress, updates: &[RankUpdate]) -> Result<(), TrainError> {
        self.state.resumed(progress, updates, self.now());
        self.paint();
        Ok(())
    }

    fn skipped(&mut self, step: usize, detail: &str) -> Result<(), TrainError> {
        self.news.push(plain::skipped_line(step, detail));
        self.paint();
        Ok(())
    }

    fn not_saved(&mut self, step: usize, error: &TrainError) -> Result<(), TrainError> {
        self.news.push(plain::not_saved_line(step, error));
        self.paint();
        Ok(())
    }

    fn step(&mut self, metrics: &StepMetrics) -> Result<(), TrainError> {
        self.state.step(metrics, self.now());
        self.paint_in_time();
        Ok(())
    }

    fn evaluating(&mut self, _step: usize, done: usize, total: usize) -> Result<(), TrainError> {
        self.state.evaluating(done, total, self.now());
        self.paint_in_time();
        Ok(())
    }

    fn evaluated(&mut self, step: usize, result: &EvalResult) -> Result<(), TrainError> {
        self.state.evaluated(step, result, self.now());
        self.news.push(plain::evaluation_line(step, result));
        self.paint();
        Ok(())
    }

    fn ranks_moved(&mut self, update: &RankUpdate) -> Result<(), TrainError> {
        self.state.ranks_moved(update, self.now());
        self.news.extend(plain::update_line(update));
        self.paint();
        Ok(())
    }

    fn finished(&mut self, report: &RunReport) -> Result<(), TrainError> {
        self.state.finished(report, self.now());
        self.paint();
        Ok(())
    }
}

/// Shows the last state of a run that was not finished. After a panic its message already stands
/// below the display, and nothing is painted over it.
impl Drop for Live {
    fn drop(&mut self) {
        if self.painted.is_some() && !self.state.is_finished() && !thread::panicking() {
            self.state.stopped(self.now());
            self.paint();
        }
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
