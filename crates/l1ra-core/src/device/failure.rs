//! [`guard`]: a device that gives up in the middle of the work, as an error.
//!
//! Burn reports what a device could not do, memory above all, by a panic: in the caller's thread when
//! something is read back, or in a thread of the backend's own.

use std::{
    any::Any,
    panic::{self, AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

/// Longest message of a device that is passed on, in characters.
const MAX_DETAIL: usize = 300;
/// How Burn's GPU runtime, and wgpu below it, say that memory was short; in small letters.
const OF_MEMORY: [&str; 7] = [
    "out of device memory",
    "can't allocate ",
    "out-of-memory error",
    "wgpu error: out of memory",
    "out of memory launching",
    "not enough memory left",
    "storage for a deferred allocation",
];
/// How they, and Burn, say anything else that a device could not do.
const OF_DEVICES: [&str; 6] = [
    "error while reading data",
    "an error happened during execution",
    "the device is poisoned",
    "the device was poisoned",
    "device lost",
    "wgpu error",
];
/// How a thread that waited for the device's says that it is gone.
const OF_WAITING: [&str; 4] = ["channel", "disconnected", "recverror", "senderror"];

/// What a device said when it gave up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the device {}: {detail}", if *out_of_memory { "ran out of memory" } else { "failed" })]
pub struct DeviceFailure {
    /// Its words, in one line of bounded length.
    pub detail: String,
    /// Whether it ran out of memory.
    pub out_of_memory: bool,
}

impl DeviceFailure {
    /// The failure that a panic's message tells of, if it does.
    pub fn of_message(message: &str) -> Option<Self> {
        let small = message.to_ascii_lowercase(); // Of the same length.
        let names = |words: &[&str]| words.iter().find_map(|word| small.find(word));
        let of_memory = names(&OF_MEMORY);
        let start = of_memory.or_else(|| names(&OF_DEVICES))?;
        // Debug output writes a line's end as two characters; a backtrace follows the first.
        let words = message[start..]
            .split(['\n', '"'])
            .next()
            .unwrap_or_default();
        let words = words.split("\\n").next().unwrap_or_default();
        Some(Self {
            detail: one_line(if of_memory.is_some() { words } else { message }),
            out_of_memory: of_memory.is_some(),
        })
    }
}

/// Guards at work.
static GUARDS: AtomicUsize = AtomicUsize::new(0);
/// The first failure since a guard began, in any thread.
static HEARD: Mutex<Option<DeviceFailure>> = Mutex::new(None);

fn heard() -> std::sync::MutexGuard<'static, Option<DeviceFailure>> {
    HEARD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does `work`. A panic that tells of a device is an error, and is not printed; any other goes on as
/// it is. With two guards at the same time, what a device's own thread says may reach either.
///
/// # Errors
/// What the device said. Nothing that `work` was about may be used any more but what it only read.
pub fn guard<T>(work: impl FnOnce() -> T) -> Result<T, DeviceFailure> {
    listen();
    *heard() = None;
    GUARDS.fetch_add(1, SeqCst);
    let done = catch_unwind(AssertUnwindSafe(work));
    GUARDS.fetch_sub(1, SeqCst);
    done.map_err(|payload| {
        let words = text(payload.as_ref()).unwrap_or_default();
        let said = DeviceFailure::of_message(words);
        let small = words.to_ascii_lowercase();
        let waited = OF_WAITING.iter().any(|word| small.contains(word));
        // What a thread of the backend said first is the reason; the caller may only hear of its end.
        let reason = heard().take().filter(|_| said.is_some() || waited);
        match reason.or(said) {
            Some(failure) => failure,
            None => resume_unwind(payload),
        }
    })
}

/// Keeps what panics say of devices while a guard is at work; all others are the former hook's.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let failure = info.payload_as_str().and_then(DeviceFailure::of_message);
            match failure.filter(|_| GUARDS.load(SeqCst) > 0) {
                Some(failure) => {
                    heard().get_or_insert(failure);
                }
                None => before(info),
            }
        }));
    });
}

fn text(payload: &(dyn Any + Send)) -> Option<&str> {
    let owned = payload.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| payload.downcast_ref::<&str>().copied())
}

/// A message in one line of bounded length.
pub(super) fn one_line(message: &str) -> String {
    let mut line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(MAX_DETAIL) {
        line.truncate(end);
        line.push('…');
    }
    line.trim_end_matches('.').into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_devices_say_is_told_from_other_panics() {
        let of = |message| DeviceFailure::of_message(message);
        let memory = of(
            "Error while reading data: Generic { reason: \"out of device memory \
             allocating 4096 bytes\\n   0: a::b\", backtrace: .. }",
        );
        let memory = memory.unwrap();
        assert!(memory.out_of_memory);
        assert_eq!(memory.detail, "out of device memory allocating 4096 bytes");
        let size = of("can't allocate buffer of size: 12\n   0: a::b").unwrap();
        assert_eq!(size.detail, "can't allocate buffer of size: 12");
        let other = of("The device is poisoned\nCaused by:\n  a trap").unwrap();
        assert!(!other.out_of_memory);
        assert_eq!(other.detail, "The device is poisoned Caused by: a trap");
        assert!(of("wgpu error: Out of Memory").unwrap().out_of_memory);
        assert_eq!(of("index out of bounds"), None);
        assert_eq!(one_line(&"é".repeat(400)).chars().count(), MAX_DETAIL + 1);
    }

    #[test]
    fn a_device_s_panic_is_an_error_and_another_goes_on() {
        let _alone = crate::device::probe::ALONE.lock();
        assert_eq!(guard(|| 7), Ok(7));
        let failure = guard(|| -> u8 { panic!("out of device memory allocating 8 bytes") });
        assert!(failure.unwrap_err().out_of_memory);
        let other = catch_unwind(|| {
            guard(|| -> u8 {
                let caught = catch_unwind(|| panic!("out of device memory allocating 8 bytes"));
                assert!(caught.is_err());
                panic!("a mistake of ours")
            })
        });
        assert_eq!(text(other.unwrap_err().as_ref()), Some("a mistake of ours"));
        // A thread of the backend's says why, and the caller only that it is gone.
        let failure = guard(|| -> u8 {
            let server = std::thread::spawn(|| panic!("can't allocate buffer of size: 9"));
            assert!(server.join().is_err());
            panic!("the channel is closed");
        });
        assert_eq!(
            failure.unwrap_err().detail,
            "can't allocate buffer of size: 9"
        );
    }
}
