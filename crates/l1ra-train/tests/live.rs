//! The live display: what it shows in terminals of several sizes, that no size breaks it, and that
//! a terminal is as it was when the display is done with it. The plain lines, to the letter.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod synthetic;

use std::{
    io::{self, Write},
    num::NonZero,
    sync::{Arc, Mutex},
    time::Duration,
};

use l1ra_core::BudgetUnit;
use l1ra_train::observe::{
    Live, Plain, RunStart, StepMetrics,
    live::{Dashboard, LiveState, Palette, RunLabels, Screen},
};
use proptest::prelude::*;
use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier},
    widgets::Widget,
};
use synthetic::Call;

fn labels() -> RunLabels {
    RunLabels {
        title: "smollm2-135m.toml".into(),
        device: "flex".into(),
        predicted_peak_bytes: Some(1_600_000_000),
    }
}

/// The state after the calls of a synthetic run up to the first that `last` wants.
fn state_at(layers: usize, last: impl Fn(&Call) -> bool) -> LiveState {
    let mut state = LiveState::new(labels());
    for (now, call) in synthetic::run(layers) {
        call.apply(&mut state, now);
        if last(&call) {
            return state;
        }
    }
    panic!("the run has no such call");
}

fn start(layers: usize) -> LiveState {
    state_at(layers, |call| matches!(call, Call::Started(_)))
}

fn after_an_update(layers: usize) -> LiveState {
    state_at(
        layers,
        |call| matches!(call, Call::Step(metrics) if metrics.step == 162),
    )
}

fn evaluating(layers: usize) -> LiveState {
    state_at(layers, |call| matches!(call, Call::Evaluating(200, 4, _)))
}

fn finished(layers: usize) -> LiveState {
    state_at(layers, |call| matches!(call, Call::Finished(_)))
}

fn draw(state: &LiveState, palette: Palette, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let draw = |frame: &mut ratatui::Frame<'_>| {
        frame.render_widget(Dashboard { state, palette }, frame.area());
    };
    terminal.draw(draw).unwrap();
    terminal
}

fn snapshot(state: &LiveState, (width, height): (u16, u16), name: &str) {
    let terminal = draw(state, Palette::Colour, width, height);
    insta::assert_snapshot!(format!("{width}x{height}-{name}"), terminal.backend());
}

#[test]
fn screens() {
    for layers in [6, 32] {
        let states = [
            ("start", start(layers)),
            ("after-an-update", after_an_update(layers)),
            ("finished", finished(layers)),
        ];
        for (name, state) in &states {
            for size in [(100, 30), (60, 20), (30, 8)] {
                snapshot(state, size, &format!("{layers}-layers-{name}"));
            }
        }
        let name = format!("{layers}-layers-evaluating");
        snapshot(&evaluating(layers), (80, 24), &name);
    }
    snapshot(&after_an_update(32), (20, 5), "32-layers-after-an-update");
}

#[test]
fn marks_say_what_colours_say() {
    let terminal = draw(&after_an_update(6), Palette::Marks, 100, 30);
    insta::assert_snapshot!("marks", terminal.backend());
    let cells = terminal.backend().buffer().content();
    assert!(
        cells
            .iter()
            .all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset)
    );
}

#[test]
fn more_modules_and_layers_than_a_terminal_has_room_for() {
    let mut adapters = synthetic::adapters(80, 7, 128);
    for index in 0..20 {
        let mut adapter = adapters[0].clone();
        adapter.path = format!("model.layers.0.expert_{index}.gate");
        adapter.path += &index.to_string();
        adapters.push(adapter);
    }
    let start = RunStart {
        steps: 10,
        update_steps: Vec::new(),
        budget: 1_000_000,
        unit: BudgetUnit::Parameters,
        adapters,
    };
    let mut state = LiveState::new(labels());
    state.started(&start, Duration::ZERO);
    insta::assert_snapshot!(draw(&state, Palette::Marks, 72, 16).backend(), @r#"
    "smollm2-135m.toml  flex                               starting, 10 steps"
    ".....................................................   0 %  0 s elapsed"
    "memory, predicted peak 1.60 GB                                          "
    "                                                                        "
    "layer   q   k   v   o gat  up dow gat gat gat gat gat gat gat gat gat   "
    "0–9   128 128 128 128 128 128 128 128 128 128 128 128 128 128 128 128   "
    "10–19 128 128 128 128 128 128 128                                       "
    "20–29 128 128 128 128 128 128 128                                       "
    "30–39 128 128 128 128 128 128 128                                       "
    "40–49 128 128 128 128 128 128 128                                       "
    "50–59 128 128 128 128 128 128 128                                       "
    "60–69 128 128 128 128 128 128 128                                       "
    "70–79 128 128 128 128 128 128 128                                       "
    "mean  128 128 128 128 128 128 128 128 128 128 128 128 128 128 128 128   "
    "+11 modules   107.23 M/1.00 M parameters   74.2 k ranks                 "
    "- fewer   + more than at start   16 just moved                          "
    "#);
}

/// The cell of the heat map's row `row` and column `column`, in a display of 100 × 30.
fn cell(buffer: &Buffer, row: u16, column: u16) -> &ratatui::buffer::Cell {
    &buffer[(52 + 6 + column * 6 + 4, row)]
}

#[test]
fn grown_ranks_are_blue_shrunk_ones_orange_and_news_is_underlined() {
    let terminal = draw(&after_an_update(6), Palette::Colour, 100, 30);
    let buffer = terminal.backend().buffer();
    let row = |y: u16| -> String { (0..100).map(|x| buffer[(x, y)].symbol()).collect() };
    let last = (0..30).find(|y| row(*y).contains("  5     ")).unwrap();
    let looks: Vec<_> = [0, 2, 3, 4]
        .map(|column| cell(buffer, last, column))
        .map(|cell| {
            (
                cell.symbol(),
                cell.bg,
                cell.modifier.contains(Modifier::UNDERLINED),
            )
        })
        .to_vec();
    let indexed = Color::Indexed;
    let expected = [
        ("2", indexed(94), true),
        ("8", indexed(172), true),
        ("6", Color::Reset, false),
        ("4", indexed(31), true),
    ];
    assert_eq!(looks, expected);
}

/// Every call in any order, with any numbers.
fn calls() -> impl Strategy<Value = Vec<Call>> {
    let ranks = prop::collection::vec(0..300_usize, 40);
    let number = prop_oneof![Just(f64::NAN), Just(f64::INFINITY), -1e3..1e9_f64];
    let call = prop_oneof![
        (0..90_usize, 0..8_usize, 0..300_usize, 0..99_usize).prop_map(
            |(layers, modules, rank, steps)| {
                Call::Started(RunStart {
                    steps,
                    update_steps: vec![3, 50],
                    adapters: synthetic::adapters(layers, modules.min(7), rank),
                    budget: rank * layers,
                    unit: if rank % 2 == 0 {
                        BudgetUnit::Ranks
                    } else {
                        BudgetUnit::Parameters
                    },
                })
            }
        ),
        (0..120_usize, number.clone(), number.clone()).prop_map(|(step, loss, seconds)| {
            Call::Step(StepMetrics {
                step,
                loss,
                grad_norm: loss,
                lr: loss,
                targets: step,
                tokens: step,
                seconds,
                resident_bytes: step as u64 * 100_000_000,
            })
        }),
        (0..99_usize, 0..99_usize).prop_map(|(done, total)| Call::Evaluating(0, done, total)),
        (0..120_usize, number).prop_map(|(step, loss)| {
            let result = l1ra_train::eval::EvalResult {
                loss,
                perplexity: loss,
                tokens: 1,
            };
            Call::Evaluated(step, result)
        }),
        (ranks.clone(), ranks)
            .prop_map(|(ranks, after)| { Call::RanksMoved(synthetic::update(7, &ranks, &after)) }),
        Just(synthetic::run(1).pop().unwrap().1),
    ];
    prop::collection::vec(call, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_size_and_no_run_breaks_it(
        calls in calls(),
        title in "\\PC{0,30}",
        marks in any::<bool>(),
        width in 0..=200_u16,
        height in 0..=80_u16,
    ) {
        let palette = if marks { Palette::Marks } else { Palette::Colour };
        let mut state = LiveState::new(RunLabels { title, ..labels() });
        for (index, call) in calls.iter().enumerate() {
            call.apply(&mut state, Duration::from_secs(index as u64));
        }
        let area = Rect::new(0, 0, width, height);
        let mut buffer = Buffer::empty(area);
        let board = Dashboard { state: &state, palette };
        board.render(area, &mut buffer);
        let used = board.height(width, height);
        prop_assert!(used <= height);
        let unused = (used..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        for place in unused {
            prop_assert_eq!(buffer[place].symbol(), " ");
        }
    }
}

#[test]
fn every_small_size_draws() {
    let states = [start(32), after_an_update(32), evaluating(6), finished(6)];
    for state in &states {
        for width in 1..50 {
            for height in 1..30 {
                draw(state, Palette::Colour, width, height);
            }
        }
    }
}

fn size(size: u16) -> NonZero<u16> {
    NonZero::new(size).unwrap()
}

/// A terminal that a test can look at.
#[derive(Clone)]
struct Emulator {
    parser: Arc<Mutex<vt100::Parser>>,
    broken: bool,
}

impl Emulator {
    fn new(columns: u16, rows: u16) -> Self {
        Self {
            parser: Arc::new(Mutex::new(vt100::Parser::new(
                size(rows),
                size(columns),
                1000,
            ))),
            broken: false,
        }
    }

    fn say(&self, text: &str) {
        self.parser.lock().unwrap().process(text.as_bytes());
    }

    fn contents(&self) -> String {
        self.parser.lock().unwrap().screen().contents()
    }
}

impl Screen for Emulator {
    fn size(&mut self) -> Option<(u16, u16)> {
        let (rows, columns) = self.parser.lock().unwrap().screen().size();
        Some((columns.get(), rows.get()))
    }

    fn reflows(&self) -> bool {
        false // Nor does the emulator.
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        if self.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.say(text);
        Ok(())
    }
}

fn live(emulator: &Emulator) -> Live {
    Live::on(Box::new(emulator.clone()), labels(), Palette::Colour)
}

#[test]
fn the_last_state_stays_and_later_output_follows() {
    let emulator = Emulator::new(100, 40);
    emulator.say("$ l1ra train smollm2-135m.toml\r\n");
    let mut display = live(&emulator);
    for (_, call) in synthetic::run(6) {
        call.tell(&mut display).unwrap();
    }
    drop(display);
    emulator.say("adapter saved in runs/1\r\n$ ");
    let contents = emulator.contents();
    let line = |text: &str| contents.lines().position(|line| line.contains(text));
    assert_eq!(line("$ l1ra train"), Some(0));
    assert_eq!(line("step 0  eval loss 3.5000  perplexity 33.12"), Some(1));
    let moved = line("step 40  4 ranks pruned, 4 grown").unwrap();
    let (shown, saved) = (line("done, 400 steps"), line("adapter saved"));
    assert!(Some(moved) < shown && shown < saved, "{contents}");
    let headers = contents.matches("smollm2-135m.toml  flex").count();
    assert_eq!(headers, 1, "{contents}");
    assert_eq!(contents.lines().last().unwrap().trim_end(), "$");
}

#[test]
fn the_terminal_is_never_in_another_mode() {
    let emulator = Emulator::new(100, 40);
    let mut display = live(&emulator);
    for (_, call) in synthetic::run(6) {
        call.tell(&mut display).unwrap();
        let parser = emulator.parser.lock().unwrap();
        let screen = parser.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor());
        // Nothing that would colour what others write.
        assert_eq!(
            (screen.fgcolor(), screen.bgcolor()),
            (vt100::Color::Default, vt100::Color::Default)
        );
        assert!(!screen.bold() && !screen.underline() && !screen.inverse());
        // The cursor stands at the start of the row below the display.
        let (row, column) = screen.cursor_position();
        assert_eq!(column, 0);
        assert_eq!(screen.contents_between(row, 0, 40, 0).trim(), "");
    }
}

#[test]
fn a_run_that_stops_says_where() {
    let emulator = Emulator::new(100, 40);
    let mut display = live(&emulator);
    for (_, call) in synthetic::run(6) {
        call.tell(&mut display).unwrap();
        if matches!(&call, Call::Step(metrics) if metrics.step == 57) {
            break;
        }
    }
    drop(display);
    let contents = emulator.contents();
    assert!(contents.contains("stopped at step 57 of 400"), "{contents}");
    assert_eq!(
        contents.matches("smollm2-135m.toml  flex").count(),
        1,
        "{contents}"
    );
}

#[test]
fn a_display_that_never_began_leaves_no_trace() {
    let emulator = Emulator::new(100, 40);
    drop(live(&emulator));
    assert_eq!(emulator.contents(), "");
}

#[test]
fn a_panic_keeps_its_message() {
    let emulator = Emulator::new(100, 40);
    let ours = emulator.clone();
    let result = std::thread::spawn(move || {
        let mut display = live(&ours);
        for (_, call) in synthetic::run(6).into_iter().take(80) {
            call.tell(&mut display).unwrap();
        }
        ours.say("thread panicked: out of memory\r\n"); // As the panic hook does.
        std::panic::resume_unwind(Box::new("out of memory"));
    })
    .join();
    assert!(result.is_err());
    let contents = emulator.contents();
    assert!(
        contents
            .trim_end()
            .ends_with("thread panicked: out of memory"),
        "{contents}"
    );
}

/// The emulator cuts lines where a terminal would wrap them: what is left of larger displays may
/// stand above the last one.
#[test]
fn a_terminal_may_change_its_size() {
    let emulator = Emulator::new(100, 40);
    let mut display = live(&emulator);
    for (_, call) in synthetic::run(6) {
        call.tell(&mut display).unwrap();
        if let Call::RanksMoved(update) = &call {
            let sizes = [(30, 100), (40, 100), (12, 60), (40, 70)];
            let (rows, columns) = sizes[update.step / 40 % 4];
            let mut parser = emulator.parser.lock().unwrap();
            parser.screen_mut().set_size(size(rows), size(columns));
        }
    }
    let contents = emulator.contents();
    let last = contents.rsplit_once("smollm2-135m.toml").unwrap().1;
    assert!(last.contains("done, 400 steps"), "{contents}");
    assert!(contents.trim_end().ends_with("just moved"), "{contents}");
}

#[test]
fn tiny_terminals_and_none_will_do() {
    for (columns, rows) in [(20, 5), (1, 1), (3, 2), (200, 80)] {
        let emulator = Emulator::new(columns, rows);
        let mut display = live(&emulator);
        for (_, call) in synthetic::run(32) {
            call.tell(&mut display).unwrap();
        }
    }
    struct Mute;
    impl Screen for Mute {
        fn size(&mut self) -> Option<(u16, u16)> {
            None
        }
        fn write(&mut self, _: &str) -> io::Result<()> {
            Ok(())
        }
    }
    let mut display = Live::on(Box::new(Mute), labels(), Palette::Marks);
    for (_, call) in synthetic::run(6) {
        call.tell(&mut display).unwrap();
    }
}

#[test]
fn a_broken_terminal_does_not_stop_a_run() {
    let emulator = Emulator {
        broken: true,
        ..Emulator::new(100, 40)
    };
    let mut display = live(&emulator);
    for (_, call) in synthetic::run(6) {
        call.tell(&mut display).unwrap();
    }
    assert_eq!(emulator.contents(), "");
}

/// Bytes that a test can look at.
#[derive(Clone, Default)]
struct Bytes(Arc<Mutex<Vec<u8>>>);

impl Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn plain_lines() {
    let bytes = Bytes::default();
    let mut plain = Plain::to(400, bytes.clone());
    for (_, call) in synthetic::run(6) {
        call.tell(&mut plain).unwrap();
    }
    let text = String::from_utf8(bytes.0.lock().unwrap().clone()).unwrap();
    insta::assert_snapshot!(text, @r"
    step 0  eval loss 3.5000  perplexity 33.12
    step 1/400  loss 3.4781  lr 9.98e-5  211 tokens/s  12 min 38 s left
    step 40/400  loss 2.8802  lr 9.09e-5  217 tokens/s  11 min 24 s left
    step 40  4 ranks pruned, 4 grown
    step 80/400  loss 2.4944  lr 8.18e-5  216 tokens/s  10 min 08 s left
    step 80  12 ranks pruned, 12 grown
    step 100  eval loss 2.6078  perplexity 13.57
    step 120/400  loss 2.5060  lr 7.27e-5  216 tokens/s  8 min 52 s left
    step 120  12 ranks pruned, 12 grown
    step 160/400  loss 2.3747  lr 6.36e-5  216 tokens/s  7 min 36 s left
    step 160  16 ranks pruned, 16 grown
    step 200/400  loss 2.3923  lr 5.45e-5  216 tokens/s  6 min 20 s left
    step 200  4 ranks pruned, 4 grown
    step 200  eval loss 2.4392  perplexity 11.46
    step 240/400  loss 2.3607  lr 4.55e-5  217 tokens/s  5 min 04 s left
    step 240  20 ranks pruned, 20 grown
    step 280/400  loss 2.3811  lr 3.64e-5  217 tokens/s  3 min 48 s left
    step 280  4 ranks pruned, 4 grown
    step 300  eval loss 2.4074  perplexity 11.11
    step 320/400  loss 2.2933  lr 2.73e-5  217 tokens/s  2 min 32 s left
    step 320  12 ranks pruned, 12 grown
    step 360/400  loss 2.3824  lr 1.82e-5  216 tokens/s  1 min 16 s left
    step 360  8 ranks pruned, 8 grown
    step 400/400  loss 2.2298  lr 9.09e-6  216 tokens/s  0 s left
    step 400  eval loss 2.4014  perplexity 11.04
    ");
}
