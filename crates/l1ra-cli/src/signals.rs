//! Ctrl-C and SIGTERM: the first one lets the step end and saves, the second one ends the program.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use anyhow::{Context, Result};
use l1ra_train::StopSignal;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use crate::output::Output;

/// How soon a signal is answered in words.
const LOOK: Duration = Duration::from_millis(100);

/// A stop signal that SIGINT and SIGTERM request, the signal's number being the reason.
pub(crate) fn stop_signal(output: Output) -> Result<StopSignal> {
    let stop = StopSignal::default();
    let second = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let number = usize::try_from(signal)?;
        // In this order, so that the first signal finds `second` still unset.
        flag::register_conditional_shutdown(signal, 128 + signal, second.clone())
            .and_then(|_| flag::register(signal, second.clone()))
            .and_then(|_| flag::register_usize(signal, stop.shared(), number))
            .context("Ctrl-C cannot be listened to")?;
    }
    let asked = stop.clone();
    std::thread::spawn(move || {
        while asked.requested().is_none() {
            std::thread::sleep(LOOK);
        }
        output.say("stopping after this step, saved; once more stops at once");
    });
    Ok(stop)
}
