//! The numbers of a run, the most wanted first.

use ratatui::{
    style::Style,
    text::{Line, Span},
};

use super::{
    super::{
        palette::Palette,
        state::{End, LiveState, Phase},
    },
    text::{BOLD, DIM, bytes, count, flow},
};

/// Narrower displays use short names.
const BRIEF_BELOW: u16 = 60;

/// The numbers in as many lines as they need.
pub(super) fn lines(state: &LiveState, palette: Palette, columns: u16) -> Vec<Line<'static>> {
    let brief = columns < BRIEF_BELOW;
    let mut pieces = Vec::new();
    pieces.extend(loss(state, palette));
    match &state.end {
        Some(end) => pieces.extend(at_the_end(state, end, palette)),
        None => pieces.extend(under_way(state, palette, brief)),
    }
    flow(pieces, columns)
}

type Piece = Vec<Span<'static>>;

fn piece(name: &'static str, value: String, style: Style) -> Piece {
    vec![
        Span::styled(name, DIM),
        Span::raw(" "),
        Span::styled(value, style),
    ]
}

/// A number, and what it counts.
fn counted(value: String, unit: &'static str) -> Piece {
    vec![
        Span::styled(value, BOLD),
        Span::raw(" "),
        Span::styled(unit, DIM),
    ]
}

fn loss(state: &LiveState, palette: Palette) -> Option<Piece> {
    let (last, smooth) = (state.last.as_ref()?, state.smooth_loss()?);
    let style = BOLD.patch(palette.loss());
    let mut loss = piece("loss", format!("{:.4}", last.loss), style);
    loss.push(Span::styled(format!(" ({smooth:.4})"), DIM));
    Some(loss)
}

fn under_way(state: &LiveState, palette: Palette, brief: bool) -> Vec<Piece> {
    let name = |long: &'static str, short: &'static str| if brief { short } else { long };
    let mut pieces = Vec::new();
    if let Some((step, loss)) = state.evals.last() {
        let mut eval = piece(
            name("eval loss", "eval"),
            format!("{loss:.4}"),
            palette.eval(),
        );
        if !brief {
            eval.push(Span::styled(format!(" at step {step}"), DIM));
        }
        pieces.push(eval);
    }
    if let Some(rate) = state.tokens_per_second() {
        pieces.push(counted(format!("{rate:.0}"), "tokens/s"));
    }
    pieces.extend(next_update(state, brief));
    pieces.extend(memory(
        state,
        state.last.as_ref().map_or(0, |last| last.resident_bytes),
    ));
    if let Some(last) = &state.last {
        pieces.push(piece(
            name("learning rate", "lr"),
            format!("{:.2e}", last.lr),
            BOLD,
        ));
        let name = name("gradient norm", "grad");
        pieces.push(piece(name, format!("{:.3}", last.grad_norm), BOLD));
    }
    pieces
}

/// When ranks move again; a run that stopped or whose ranks never move has nothing to say.
fn next_update(state: &LiveState, brief: bool) -> Option<Piece> {
    let name = |long: &'static str, short: &'static str| if brief { short } else { long };
    match state.next_update() {
        _ if state.phase == Phase::Stopped => None,
        Some(1) => Some(piece(
            name("ranks move in", "ranks in"),
            "1 step".into(),
            BOLD,
        )),
        Some(next) => {
            let name = name("ranks move in", "ranks in");
            Some(piece(name, format!("{next} steps"), BOLD))
        }
        None if state.updates > 0 => {
            let text = name("no rank update left", "ranks stay");
            Some(vec![Span::styled(text, DIM)])
        }
        None => None,
    }
}

fn memory(state: &LiveState, resident: u64) -> Option<Piece> {
    let predicted = state.labels.predicted_peak_bytes;
    if resident == 0 {
        return predicted.map(|peak| piece("memory, predicted peak", bytes(peak), BOLD));
    }
    let mut memory = piece("memory", bytes(resident), BOLD);
    if let Some(peak) = predicted {
        memory.push(Span::styled(format!(" of {} predicted", bytes(peak)), DIM));
    }
    Some(memory)
}

fn at_the_end(state: &LiveState, end: &End, palette: Palette) -> Vec<Piece> {
    let rate = end.tokens as f64 / end.seconds.max(1e-9);
    let change = |from: String, to: String| {
        if from == to {
            to
        } else {
            format!("{from} → {to}")
        }
    };
    let eval = change(format!("{:.4}", end.before), format!("{:.4}", end.after));
    let parameters = change(count(end.parameters[0]), count(end.parameters[1]));
    let mut pieces = vec![
        piece("eval loss", eval, palette.eval()),
        piece(
            "tokens",
            format!("{} at {rate:.0}/s", count(end.tokens)),
            BOLD,
        ),
        piece("parameters", parameters, BOLD),
    ];
    if let Some(mut peak) = memory(state, end.peak_bytes) {
        peak[0] = Span::styled("peak memory", DIM);
        pieces.push(peak);
    }
    pieces
}
