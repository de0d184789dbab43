//! [`Output`]: where words and results go.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Results go to standard output, everything else to standard error. With `--json`, the result is
/// one line of JSON and its text form goes to standard error as well.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    verbose: bool,
}

impl Output {
    pub(crate) fn new(json: bool, quiet: bool, verbose: bool) -> Self {
        Self {
            json,
            quiet,
            verbose,
        }
    }

    pub(crate) fn is_quiet(self) -> bool {
        self.quiet
    }

    /// Whether a progress bar may be drawn on standard error.
    pub(crate) fn may_draw(self) -> bool {
        !self.quiet && std::io::stderr().is_terminal() && !is_ci()
    }

    /// Says what happens, on standard error. A closed one is no reason to stop.
    pub(crate) fn say(self, text: impl AsRef<str>) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr(), "{}", text.as_ref());
        }
    }

    /// Says a detail that only `-v` shows.
    pub(crate) fn detail(self, text: impl AsRef<str>) {
        if self.verbose {
            self.say(text);
        }
    }

    /// The result: `text` for people, or `value` as one line for programs.
    pub(crate) fn result(
        self,
        text: impl AsRef<str>,
        value: &impl Serialize,
    ) -> anyhow::Result<()> {
        if self.json {
            self.say(text);
            return self.result_line(value);
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", text.as_ref())?;
        out.flush()?;
        Ok(())
    }

    /// A piece of a text that is on its way: to standard output, or with `--json` to nowhere.
    pub(crate) fn stream(self, piece: &str) {
        if !self.json {
            let mut out = std::io::stdout();
            let _ = write!(out, "{piece}").and_then(|()| out.flush());
        }
    }

    /// Ends a streamed text; with `--json`, `value` is the result line.
    pub(crate) fn end_stream(self, value: &impl Serialize) -> anyhow::Result<()> {
        if self.json {
            return self.result_line(value);
        }
        writeln!(std::io::stdout())?;
        Ok(())
    }

    fn result_line(self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        serde_json::to_writer(&mut out, value)?;
        writeln!(out)?;
        out.flush()?;
        Ok(())
    }

    /// An error; with `--json` also as the result line.
    pub(crate) fn error(self, error: &anyhow::Error, code: u8) {
        let _ = writeln!(std::io::stderr(), "error: {error}");
        for cause in error.chain().skip(1) {
            let cause = cause.to_string();
            if !error.to_string().contains(&cause) {
                let _ = writeln!(std::io::stderr(), "  because: {cause}");
            }
        }
        if self.json {
            error_line(&error.to_string(), code);
        }
    }
}

/// An error as the result line of `--json`.
pub(crate) fn error_line(error: &str, code: u8) {
    let line = serde_json::json!({"error": error, "exit_code": code});
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A progress bar on standard error, where one may be drawn.
#[derive(Debug)]
pub(crate) struct Bar(Option<ProgressBar>);

impl Output {
    /// A bar that begins with `what`.
    pub(crate) fn bar(self, what: &'static str) -> Bar {
        Bar(self.may_draw().then(|| {
            let bar = ProgressBar::new(0).with_prefix(what);
            let style = ProgressStyle::with_template("{prefix} {bar:30} {msg} {pos}/{len}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        }))
    }
}

impl Bar {
    /// `done` of `total`.
    pub(crate) fn count(&self, done: usize, total: usize) {
        if let Some(bar) = &self.0 {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        }
    }

    /// Bytes of a file.
    pub(crate) fn bytes(&self, file: &str, done: u64, total: u64) {
        if let Some(bar) = &self.0 {
            bar.set_message(format!("{file} (MB)"));
            bar.set_length(total / 1_000_000);
            bar.set_position(done / 1_000_000);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Whether this runs in continuous integration, where nothing should redraw.
fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}
