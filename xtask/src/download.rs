//! A file over HTTP that goes on where it stopped, and its checksum.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};
use sha2::{Digest, Sha256};
use ureq::tls::{RootCerts, TlsConfig};

const BUFFER: usize = 1 << 16;
const MEGABYTE: f64 = 1e6;

/// Gets `url` into `path`, unless it is there already with the wanted checksum.
///
/// What an earlier run left at `path` is kept: the server is asked for the rest. A server that
/// sends the whole file again is taken at its word.
///
/// # Errors
/// No connection, a download that ends early (`path` stays, to go on with), a full disk, or a
/// file with another checksum (`path` is removed).
pub(crate) fn fetch(url: &str, path: &Path, sha256: &str) -> Result<()> {
    let present = fs::metadata(path).map_or(0, |file| file.len());
    if present > 0 && sha256_of(path)? == sha256 {
        return Ok(());
    }
    if !append_rest(url, path, present)? {
        // The server has no byte after the ones that we hold, yet those are not the file.
        append_rest(url, path, 0)?;
    }
    let found = sha256_of(path)?;
    if found == sha256 {
        return Ok(());
    }
    fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    bail!(
        "the checksum of the downloaded file is wrong (SHA-256 {found}, expected {sha256}); it \
         was removed. Run this again; if it happens twice, the file was changed on its way or at \
         its source: do not use it"
    )
}

/// Asks for everything from byte `start` on. `false`: the server says there is no such byte.
fn append_rest(url: &str, path: &Path, start: u64) -> Result<bool> {
    let mut request = agent().get(url);
    if start > 0 {
        request = request.header("range", format!("bytes={start}-"));
    }
    let mut response = match request.call() {
        Ok(response) => response,
        Err(ureq::Error::StatusCode(416)) if start > 0 => return Ok(false),
        Err(error) => return Err(Error::new(error).context(format!("cannot get {url}"))),
    };
    let header = |name| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let continues = header("content-range").is_some_and(|range| begins_at(range, start));
    let start = if response.status() == 206 && continues {
        start
    } else {
        0
    };
    let rest: Option<u64> = header("content-length").and_then(|length| length.parse().ok());
    if response.status() == 206 && start == 0 && !continues {
        bail!("the server at {url} sent another part of the file than the one asked for");
    }
    let mut options = OpenOptions::new();
    options
        .create(true)
        .write(true)
        .append(start > 0)
        .truncate(start == 0);
    let mut file = options
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    let mut progress = Progress::new(start, rest.map(|rest| rest + start));
    let mut body = response.body_mut().with_config().limit(u64::MAX).reader();
    copy(&mut body, &mut file, path, &mut progress)?;
    Ok(true)
}

fn agent() -> ureq::Agent {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .build();
    let config = ureq::Agent::config_builder()
        .tls_config(tls)
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)));
    config.build().into()
}

/// Whether a `content-range` such as `bytes 100-199/200` begins at `start`.
fn begins_at(range: &str, start: u64) -> bool {
    let first = range
        .strip_prefix("bytes ")
        .and_then(|range| range.split('-').next());
    first.and_then(|first| first.parse().ok()) == Some(start)
}

fn copy(body: &mut impl Read, file: &mut File, path: &Path, progress: &mut Progress) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(progress.ended_early(Some(&error))),
        };
        file.write_all(&buffer[..count])
            .map_err(|error| cannot_write(path, error))?;
        progress.advance(count as u64);
    }
    file.sync_all().map_err(|error| cannot_write(path, error))?;
    progress.finish();
    match progress.total {
        Some(total) if progress.done < total => Err(progress.ended_early(None)),
        _ => Ok(()),
    }
}

/// A failed write; a full disk gets a remedy.
pub(crate) fn cannot_write(path: &Path, error: io::Error) -> Error {
    let what = format!("cannot write {}", path.display());
    if error.kind() == ErrorKind::StorageFull {
        return Error::new(error).context(format!(
            "{what}: the disk is full; make room (about 200 MB are needed) and run this again, it \
             goes on where it stopped"
        ));
    }
    Error::new(error).context(what)
}

/// The SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256_of(path: &Path) -> Result<String> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut reader = HashingReader {
        inner: file,
        hash: &mut hash,
    };
    io::copy(&mut reader, &mut io::sink())
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hex(hash))
}

/// A reader that adds what passes through it to a hash.
pub(crate) struct HashingReader<'a, R> {
    /// Where the bytes come from.
    pub(crate) inner: R,
    /// What they are added to.
    pub(crate) hash: &'a mut Sha256,
}

impl<R: Read> Read for HashingReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// A finished hash in hexadecimal.
pub(crate) fn hex(hash: Sha256) -> String {
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Progress on standard error: one line that changes on a terminal, else a line every 10 %.
struct Progress {
    done: u64,
    total: Option<u64>,
    terminal: bool,
    shown: Option<(Instant, u64)>,
}

impl Progress {
    fn new(done: u64, total: Option<u64>) -> Self {
        if done > 0 {
            eprintln!("going on at {:.1} MB", done as f64 / MEGABYTE);
        }
        Self {
            done,
            total,
            terminal: io::stderr().is_terminal(),
            shown: None,
        }
    }

    fn advance(&mut self, count: u64) {
        self.done += count;
        let tenth = self.done * 10 / self.total.unwrap_or(u64::MAX).max(1);
        let due = match self.shown {
            None => true,
            Some((when, _)) if self.terminal => when.elapsed() > Duration::from_millis(100),
            Some((_, before)) => tenth > before,
        };
        if due {
            self.shown = Some((Instant::now(), tenth));
            self.show();
        }
    }

    fn show(&self) {
        let done = self.done as f64 / MEGABYTE;
        let line = self.total.map_or(format!("{done:.1} MB"), |total| {
            let share = self.done as f64 / total.max(1) as f64 * 100.0;
            format!(
                "{done:.1} of {:.1} MB ({share:.0} %)",
                total as f64 / MEGABYTE
            )
        });
        if self.terminal {
            eprint!("\r{line} ");
        } else {
            eprintln!("{line}");
        }
    }

    fn finish(&self) {
        if self.terminal {
            self.show();
            eprintln!();
        }
    }

    fn ended_early(&self, error: Option<&io::Error>) -> Error {
        let total = self
            .total
            .map_or("an unknown number of".to_owned(), |total| total.to_string());
        let cause = error.map(|error| format!(" ({error})")).unwrap_or_default();
        anyhow::anyhow!(
            "the download ended early, after {} of {total} bytes{cause}; run this again, it goes \
             on where it stopped",
            self.done
        )
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    use tempfile::TempDir;

    use super::*;

    const BODY: &[u8] = b"All happy downloads are alike; each broken one breaks in its own way.";

    /// How the server answers.
    #[derive(Clone, Copy)]
    enum Manner {
        /// Honours ranges.
        Ranges,
        /// Always sends the whole file.
        Whole,
        /// Announces the whole file, sends ten bytes of it and hangs up.
        Cut,
    }

    /// Answers `requests` requests, then returns the range header of each.
    fn serve(manner: Manner, requests: usize) -> (String, JoinHandle<Vec<Option<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        let server =
            thread::spawn(move || (0..requests).map(|_| answer(&listener, manner)).collect());
        (url, server)
    }

    fn answer(listener: &TcpListener, manner: Manner) -> Option<String> {
        let (mut stream, _) = listener.accept().unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap())
            .lines()
            .map(Result::unwrap);
        let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let range = request.iter().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("range").then(|| value.to_owned())
        });
        let start = range
            .as_deref()
            .and_then(|range| range.strip_prefix("bytes="));
        let start: usize = start.map_or(0, |start| start.trim_end_matches('-').parse().unwrap());
        let length = BODY.len();
        let (head, body) = match manner {
            Manner::Ranges if start >= length => (
                "416 Range Not Satisfiable\r\ncontent-length: 0".into(),
                &BODY[..0],
            ),
            Manner::Ranges if start > 0 => {
                let range = format!("content-range: bytes {start}-{}/{length}", length - 1);
                let rest = length - start;
                (
                    format!("206 Partial Content\r\n{range}\r\ncontent-length: {rest}"),
                    &BODY[start..],
                )
            }
            Manner::Cut => (format!("200 OK\r\ncontent-length: {length}"), &BODY[..10]),
            _ => (format!("200 OK\r\ncontent-length: {length}"), BODY),
        };
        write!(stream, "HTTP/1.1 {head}\r\nconnection: close\r\n\r\n").unwrap();
        stream.write_all(body).unwrap();
        range
    }

    fn sum(bytes: &[u8]) -> String {
        let mut hash = Sha256::new();
        hash.update(bytes);
        hex(hash)
    }

    #[test]
    fn hex_is_the_usual_form() {
        assert_eq!(sum(b"abc")[..16], *"ba7816bf8f01cfea");
    }

    #[test]
    fn a_download_goes_on_where_it_stopped() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("file.part");
        fs::write(&path, &BODY[..20]).unwrap();
        let (url, server) = serve(Manner::Ranges, 1);
        fetch(&url, &path, &sum(BODY)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), BODY);
        assert_eq!(server.join().unwrap(), [Some("bytes=20-".to_owned())]);
    }

    #[test]
    fn a_server_without_ranges_sends_it_all_again() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("file.part");
        fs::write(&path, b"something else of old").unwrap();
        let (url, server) = serve(Manner::Whole, 1);
        fetch(&url, &path, &sum(BODY)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), BODY);
        server.join().unwrap();
    }

    #[test]
    fn a_whole_file_needs_no_server() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("file.part");
        fs::write(&path, BODY).unwrap();
        fetch("http://127.0.0.1:1/", &path, &sum(BODY)).unwrap();
    }

    #[test]
    fn a_truncated_download_says_so_and_can_go_on() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("file.part");
        let (url, server) = serve(Manner::Cut, 1);
        let error = fetch(&url, &path, &sum(BODY)).unwrap_err().to_string();
        server.join().unwrap();
        assert!(
            error.contains("ended early, after 10 of 69 bytes"),
            "{error}"
        );
        let (url, server) = serve(Manner::Ranges, 1);
        fetch(&url, &path, &sum(BODY)).unwrap();
        assert_eq!(server.join().unwrap(), [Some("bytes=10-".to_owned())]);
    }

    #[test]
    fn a_wrong_checksum_removes_the_file() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("file.part");
        let (url, server) = serve(Manner::Ranges, 1);
        let error = fetch(&url, &path, &sum(b"other")).unwrap_err().to_string();
        server.join().unwrap();
        assert!(
            error.contains("checksum") && error.contains(&sum(BODY)),
            "{error}"
        );
        assert!(!path.exists());
    }

    #[test]
    fn a_spoilt_part_of_full_length_starts_over() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("file.part");
        fs::write(&path, vec![b'x'; BODY.len()]).unwrap();
        let (url, server) = serve(Manner::Ranges, 2);
        fetch(&url, &path, &sum(BODY)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), BODY);
        assert_eq!(server.join().unwrap(), [Some("bytes=69-".to_owned()), None]);
    }

    #[test]
    fn no_server_is_an_error_with_the_address() {
        let folder = TempDir::new().unwrap();
        let error = fetch("http://127.0.0.1:1/x", &folder.path().join("f"), "").unwrap_err();
        assert!(format!("{error:#}").contains("cannot get http://127.0.0.1:1/x"));
    }
}
