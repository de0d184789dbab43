//! [`Screen`]: where a live display is painted.

use std::{env, io};

use ratatui::crossterm::terminal;

/// A terminal, as far as a live display needs one.
pub trait Screen: Send {
    /// Columns and rows now; none if that cannot be told.
    fn size(&mut self) -> Option<(u16, u16)>;

    /// Whether lines wrap and join again when the width changes, as in most terminals.
    fn reflows(&self) -> bool {
        true
    }

    /// Writes all of `text` at once.
    ///
    /// # Errors
    /// When it cannot be written; the display is silent from then on.
    fn write(&mut self, text: &str) -> io::Result<()>;
}

/// The terminal on standard error.
#[derive(Debug)]
pub(super) struct StandardError {
    reflows: bool,
    /// Asking in vain can be slow, and is done once.
    mute: bool,
}

impl StandardError {
    pub(super) fn new() -> Self {
        Self {
            reflows: env::var_os("TMUX").is_some() || env::var_os("XTERM_VERSION").is_none(),
            mute: false,
        }
    }
}

impl Screen for StandardError {
    fn size(&mut self) -> Option<(u16, u16)> {
        if self.mute {
            return None;
        }
        let size = terminal::size().ok();
        self.mute = size.is_none();
        size
    }

    fn reflows(&self) -> bool {
        self.reflows
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        io::Write::write_all(&mut io::stderr().lock(), text.as_bytes())
    }
}
