//! Hub names, against a server of this machine that speaks the hub's protocol: what is downloaded,
//! resumed and left alone, and what each refusal says.
#![cfg(feature = "hub")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

use l1ra_hub::{HubError, HubErrorKind, HubOptions, ModelRef, fetch_model_with};
use serde_json::json;
use tempfile::TempDir;

const REPO: &str = "tiny/llama";
/// What the repository was called before: the hub knows it still.
const OLD: &str = "tiny/before";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const WEIGHTS: &str = "model.safetensors";

// ---- the server ---------------------------------------------------------------------------------

/// What the hub holds and how it behaves.
struct State {
    /// Files of `tiny/llama` at `main` and at its commit.
    files: BTreeMap<String, Vec<u8>>,
    /// The commit of `main`.
    commit: String,
    /// Names that `main`'s commit has beside.
    tag: &'static str,
    /// Only this token may read.
    token: Option<&'static str>,
    /// Status of every answer for a file.
    file_status: Option<u16>,
    /// Connections that break in the middle of the weights, and the bytes sent before.
    breaks: usize,
    break_after: usize,
    /// Whether ranges are honoured in the weights.
    ranges: bool,
    /// Where the weights are sent from: an address of another host, as on the public hub.
    elsewhere: Option<String>,
    /// The size that is announced for weights that lie elsewhere, in place of the true one.
    announced: Option<usize>,
    /// Sent as the ETag of every file.
    etag: Option<&'static str>,
    /// Every request: method, path, range.
    log: Vec<String>,
}

struct Server {
    state: Arc<Mutex<State>>,
    address: String,
    cache: TempDir,
}

/// One request, its header fields in lower case.
struct Request {
    method: String,
    path: String,
    fields: BTreeMap<String, String>,
}

impl Server {
    fn start(files: BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State {
            files,
            commit: COMMIT.into(),
            tag: "v1",
            token: None,
            file_status: None,
            breaks: 0,
            break_after: 0,
            ranges: true,
            elsewhere: None,
            announced: None,
            etag: None,
            log: Vec::new(),
        }));
        let shared = Arc::clone(&state);
        // One request a connection; the thread ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, shared) = (stream.unwrap(), Arc::clone(&shared));
                thread::spawn(move || answer(stream, &shared));
            }
        });
        let cache = tempfile::tempdir().unwrap();
        Self {
            state,
            address,
            cache,
        }
    }

    fn tiny() -> Self {
        Self::start(tiny_files())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn options(&self) -> HubOptions {
        HubOptions {
            cache: self.cache.path().join("hub"),
            token: None,
            endpoint: Some(self.address.clone()),
            offline: false,
        }
    }

    fn fetch(&self, name: &str) -> Result<PathBuf, HubError> {
        self.fetch_with(name, &self.options())
    }

    fn fetch_with(&self, name: &str, options: &HubOptions) -> Result<PathBuf, HubError> {
        fetch_model_with(
            &ModelRef::parse(name).unwrap(),
            options,
            &accept,
            &mut |_, _, _| {},
        )
    }

    /// Kind and text of the error, this run's places made plain.
    fn error(&self, name: &str, options: &HubOptions) -> (HubErrorKind, String) {
        let error = self.fetch_with(name, options).expect_err("it was fetched");
        let cache = self.options().cache.display().to_string();
        let text = error.to_string().replace(&cache, "[CACHE]");
        (error.kind, text.replace(&self.address, "[HUB]"))
    }

    /// Whether every file in `snapshot` is the hub's, byte for byte, and the model is there.
    fn assert_whole(&self, snapshot: &Path) {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(snapshot).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_string();
            assert!(
                std::fs::read(&path).unwrap() == self.state().files[&name],
                "{name}"
            );
            names.push(name);
        }
        names.sort();
        let sharded = ["config.json", SHARDS[0], SHARDS[1], INDEX, "tokenizer.json"];
        let whole = ["config.json", WEIGHTS, "tokenizer.json"];
        assert!(names == sharded || names == whole, "{names:?}");
    }

    /// The requests since the last call.
    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }
}

fn answer(stream: TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ').map(String::from);
    let mut request = Request {
        method: words.next()?,
        path: words.next()?,
        fields: BTreeMap::new(),
    };
    for line in lines {
        let line = line.ok()?;
        let Some((key, value)) = line.split_once(": ") else {
            break;
        };
        request.fields.insert(key.to_lowercase(), value.to_string());
    }
    let mut state = state.lock().unwrap();
    let range = request.fields.get("range").map(|range| format!(" {range}"));
    let line = format!(
        "{} {}{}",
        request.method,
        request.path,
        range.unwrap_or_default()
    );
    state.log.push(line);
    let reply = reply(&mut state, &request);
    drop(state);
    let mut stream = stream;
    stream.write_all(&reply).ok()
}

/// The bytes of an answer; fewer than announced where the connection is to break.
fn reply(state: &mut State, request: &Request) -> Vec<u8> {
    let sent = request.fields.get("authorization");
    if let Some(name) = request.path.strip_prefix("/elsewhere/") {
        assert_eq!(sent, None, "the token is the hub's alone");
        let bytes = state.files[name].clone();
        return file(&bytes, name, state, request);
    }
    if request.path.contains(OLD) {
        let place = request.path.replace(OLD, REPO);
        return plain(307, &format!("Location: {place}\r\n"), b"");
    }
    let wanted = state.token.map(|token| format!("Bearer {token}"));
    if wanted.is_some() && sent != wanted.as_ref() {
        return plain(401, "X-Error-Code: GatedRepo\r\n", b"");
    }
    let info = format!("/api/models/{REPO}/revision/");
    if let Some(revision) = request.path.strip_prefix(&info) {
        if !is_known(state, revision) {
            return plain(404, "X-Error-Code: RevisionNotFound\r\n", b"");
        }
        let names = state.files.keys().map(|name| json!({"rfilename": name}));
        let body = json!({"sha": state.commit, "siblings": names.collect::<Vec<_>>()});
        return plain(200, "", body.to_string().as_bytes());
    }
    let resolve = format!("/{REPO}/resolve/");
    let Some((revision, name)) = request
        .path
        .strip_prefix(&resolve)
        .and_then(|rest| rest.split_once('/'))
    else {
        return plain(404, "X-Error-Code: RepoNotFound\r\n", b"");
    };
    if let Some(status) = state.file_status {
        return plain(status, "", b"");
    }
    if let (Some(place), WEIGHTS) = (&state.elsewhere, name) {
        let (commit, size) = (&state.commit, state.files[name].len());
        let size = state.announced.unwrap_or(size);
        let fields = format!(
            "Location: {place}/elsewhere/{name}\r\nX-Linked-ETag: \"of-the-bytes\"\r\n\
             X-Linked-Size: {size}\r\nETag: \"of-the-pointer\"\r\nX-Repo-Commit: {commit}\r\n"
        );
        return plain(302, &fields, b"");
    }
    match state.files.get(name).filter(|_| is_known(state, revision)) {
        Some(bytes) => file(&bytes.clone(), name, state, request),
        None => plain(404, "X-Error-Code: EntryNotFound\r\n", b""),
    }
}

fn is_known(state: &State, revision: &str) -> bool {
    ["main", state.tag, &state.commit].contains(&revision)
}

fn file(bytes: &[u8], name: &str, state: &mut State, request: &Request) -> Vec<u8> {
    let own = format!("{name}-{}", bytes.len()).replace('.', "-");
    let (etag, commit) = (state.etag.unwrap_or(&own), &state.commit);
    let fields = format!("ETag: \"{etag}\"\r\nX-Repo-Commit: {commit}\r\n");
    let range = request.fields.get("range").and_then(|range| {
        let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
        let end = end.parse().map_or(bytes.len(), |end: usize| end + 1);
        Some((start.parse::<usize>().ok()?, end))
    });
    let (start, end) = range.unwrap_or((0, bytes.len()));
    if start >= bytes.len() {
        return plain(416, "", b"");
    }
    if request.method == "HEAD" {
        let mut head = plain(200, &fields, bytes);
        head.truncate(head.len() - bytes.len());
        return head;
    }
    if name == WEIGHTS && !state.ranges {
        return plain(200, &fields, bytes);
    }
    let fields = format!(
        "{fields}Content-Range: bytes {start}-{}/{}\r\n",
        end - 1,
        bytes.len()
    );
    let mut reply = plain(206, &fields, &bytes[start..end]);
    if name == WEIGHTS && state.breaks > 0 {
        state.breaks -= 1;
        reply.truncate(reply.len() - (end - start) + state.break_after);
    }
    reply
}

fn plain(status: u16, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status} Status\r\nContent-Length: {}\r\nConnection: close\r\n{fields}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

// ---- the model ----------------------------------------------------------------------------------

const INDEX: &str = "model.safetensors.index.json";
const SHARDS: [&str; 2] = [
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
];

fn accept(_config: &Path) -> Result<(), String> {
    Ok(())
}

/// Bytes without a period, so that a download that resumes at the wrong place is seen.
fn bytes(length: usize, mut state: u32) -> Vec<u8> {
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A model, and what else repositories hold.
fn tiny_files() -> BTreeMap<String, Vec<u8>> {
    BTreeMap::from([
        ("README.md".to_string(), b"# a model".to_vec()),
        (
            "config.json".into(),
            b"{\"model_type\": \"llama\"}".to_vec(),
        ),
        ("tokenizer.json".into(), b"{\"version\": \"1.0\"}".to_vec()),
        ("pytorch_model.bin".into(), b"the same again".to_vec()),
        (WEIGHTS.into(), bytes(70_000, 1)),
    ])
}

/// The same in two shards, with an index that lists them.
fn sharded_files() -> BTreeMap<String, Vec<u8>> {
    let mut files = tiny_files();
    files.remove(WEIGHTS);
    let map = json!({"a.weight": SHARDS[0], "b.weight": SHARDS[1], "c.weight": SHARDS[0]});
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    files.insert(INDEX.into(), index.to_string().into_bytes());
    for (seed, shard) in (2..).zip(SHARDS) {
        files.insert(shard.into(), bytes(5_000, seed));
    }
    files
}

// ---- downloads ----------------------------------------------------------------------------------

#[test]
fn a_model_is_downloaded_whole() {
    let server = Server::tiny();
    let mut last = BTreeMap::new();
    let path = fetch_model_with(
        &ModelRef::parse(REPO).unwrap(),
        &server.options(),
        &accept,
        &mut |file, done, total| {
            last.insert(file.to_string(), (done, total));
        },
    )
    .unwrap();
    server.assert_whole(&path);
    let weights = 70_000;
    assert_eq!(last[WEIGHTS], (weights, weights));
    assert_eq!(
        last.keys().collect::<Vec<_>>(),
        ["config.json", WEIGHTS, "tokenizer.json"]
    );
    // The lay-out that other programs read.
    let folder = server.options().cache.join("models--tiny--llama");
    assert_eq!(path, folder.join("snapshots").join(COMMIT));
    assert_eq!(
        std::fs::read_to_string(folder.join("refs/main")).unwrap(),
        COMMIT
    );
    assert_eq!(std::fs::read_dir(folder.join("refs")).unwrap().count(), 1);
}

#[test]
fn the_second_time_no_file_is_asked_for() {
    let server = Server::tiny();
    let first = server.fetch(REPO).unwrap();
    server.requests();
    assert_eq!(server.fetch(REPO).unwrap(), first);
    assert_eq!(
        server.requests(),
        ["GET /api/models/tiny/llama/revision/main"]
    );
    // A commit cannot move: not even its list is asked for.
    assert_eq!(server.fetch(&format!("{REPO}@{COMMIT}")).unwrap(), first);
    assert!(server.requests().is_empty());
}

#[test]
fn a_new_commit_brings_only_what_changed() {
    let server = Server::tiny();
    let first = server.fetch(REPO).unwrap();
    let next = "f".repeat(40);
    server.state().commit = next.clone();
    let config = json!({"model_type": "llama", "rope_theta": 500_000.0}).to_string();
    server
        .state()
        .files
        .insert("config.json".into(), config.into_bytes());
    server.requests();
    let second = server.fetch(REPO).unwrap();
    assert!(first != second && second.ends_with(&next));
    server.assert_whole(&second);
    let whole = server
        .requests()
        .into_iter()
        .filter(|line| line.ends_with("bytes=0-"));
    assert_eq!(whole.count(), 1, "the configuration alone");
}

#[test]
fn a_revision_is_asked_for_by_its_name() {
    let server = Server::tiny();
    let path = server.fetch(&format!("{REPO}@v1")).unwrap();
    server.assert_whole(&path);
    assert_eq!(
        server.requests()[0],
        "GET /api/models/tiny/llama/revision/v1"
    );
    let mut offline = server.options();
    offline.offline = true;
    assert_eq!(
        server.fetch_with(&format!("{REPO}@v1"), &offline).unwrap(),
        path
    );
}

#[test]
fn shards_are_those_of_the_index() {
    let mut files = sharded_files();
    files.insert(
        "model-00003-of-00003.safetensors".into(),
        b"of another index".to_vec(),
    );
    let server = Server::start(files);
    let path = server.fetch(REPO).unwrap();
    server.assert_whole(&path);
    assert!(!path.join("model-00003-of-00003.safetensors").exists());
    std::fs::remove_file(path.join("model-00002-of-00002.safetensors")).unwrap();
    let mut offline = server.options();
    offline.offline = true;
    let (kind, error) = server.error(REPO, &offline);
    assert_eq!(kind, HubErrorKind::Offline);
    assert!(
        error.contains("lacks model-00002-of-00002.safetensors"),
        "{error}"
    );
    // What is still in the cache need not be sent again.
    server.requests();
    server.assert_whole(&server.fetch(REPO).unwrap());
    assert!(
        !server
            .requests()
            .iter()
            .any(|line| line.ends_with("bytes=0-"))
    );
}

#[test]
fn weights_may_lie_elsewhere_and_the_token_stays_here() {
    let server = Server::tiny();
    let port = server.address.rsplit(':').next().unwrap();
    server.state().elsewhere = Some(format!("http://localhost:{port}"));
    server.state().token = Some("hf_secret");
    (server.state().breaks, server.state().break_after) = (1, 10_000);
    let mut options = server.options();
    options.token = Some("hf_secret".into());
    let path = server.fetch_with(REPO, &options).unwrap();
    server.assert_whole(&path);
    let requests = server.requests();
    let resumed = format!("GET /elsewhere/{WEIGHTS} bytes=10000-");
    assert!(requests.contains(&resumed), "{requests:?}");
    let blob = options.cache.join("models--tiny--llama/blobs/of-the-bytes");
    assert!(blob.is_file());
}

#[test]
fn weights_of_another_size_than_announced_are_refused() {
    let server = Server::tiny();
    let size = server.state().files[WEIGHTS].len();
    server.state().elsewhere = Some(server.address.clone());
    for announced in [size - 10, size + 10] {
        server.state().announced = Some(announced);
        let (_, text) = server.error(REPO, &server.options());
        let sent = size.min(announced + 1);
        let expected = format!("it sent {sent} bytes");
        assert!(text.contains(&expected), "{text}");
        assert!(
            text.contains(&format!("and announced {announced}")),
            "{text}"
        );
    }
    server.state().announced = None;
    server.assert_whole(&server.fetch(REPO).unwrap());
}

#[test]
fn a_repository_may_have_been_renamed() {
    let server = Server::tiny();
    server.assert_whole(&server.fetch(OLD).unwrap());
}

#[test]
fn the_only_gguf_file_is_the_model() {
    let gguf = bytes(3_000, 4);
    let config = b"{\"model_type\": \"of the original\"}".to_vec();
    let files = [
        ("config.json".to_string(), config),
        ("tiny.gguf".into(), gguf.clone()),
    ];
    let server = Server::start(files.into());
    let path = server.fetch(REPO).unwrap();
    assert!(path.ends_with("tiny.gguf"));
    assert!(std::fs::read(&path).unwrap() == gguf);
    let mut offline = server.options();
    offline.offline = true;
    assert_eq!(server.fetch_with(REPO, &offline).unwrap(), path);
}

// ---- what breaks --------------------------------------------------------------------------------

#[test]
fn a_broken_connection_goes_on_where_it_stopped() {
    let server = Server::tiny();
    (server.state().breaks, server.state().break_after) = (2, 10_000);
    let path = server.fetch(REPO).unwrap();
    server.assert_whole(&path);
    let of_weights = format!("GET /{REPO}/resolve/{COMMIT}/{WEIGHTS} bytes=");
    let starts: Vec<String> = server
        .requests()
        .iter()
        .filter_map(|line| line.strip_prefix(&of_weights))
        .filter(|range| range.ends_with('-'))
        .map(String::from)
        .collect();
    assert_eq!(starts, ["0-", "10000-", "20000-"]);
}

#[test]
fn the_next_run_resumes_what_the_last_one_left() {
    let server = Server::tiny();
    (server.state().breaks, server.state().break_after) = (1, 10_000);
    // Broken once with news, then nothing but broken.
    let broken = Arc::clone(&server.state);
    let mut stop = |file: &str, done: u64, _total: u64| {
        if file == WEIGHTS && done > 0 {
            let mut state = broken.lock().unwrap();
            (state.breaks, state.break_after) = (10, 0);
        }
    };
    let reference = ModelRef::parse(REPO).unwrap();
    let error = fetch_model_with(&reference, &server.options(), &accept, &mut stop).unwrap_err();
    assert_eq!(error.kind, HubErrorKind::Network, "{error}");
    assert!(error.detail.contains("goes on where it stopped"), "{error}");
    server.state().breaks = 0;
    server.requests();
    server.assert_whole(&server.fetch(REPO).unwrap());
    let resumed = format!("GET /{REPO}/resolve/{COMMIT}/{WEIGHTS} bytes=10000-");
    assert!(server.requests().contains(&resumed));
}

#[test]
fn a_server_without_ranges_does_not_spoil_the_file() {
    let server = Server::tiny();
    (server.state().breaks, server.state().break_after) = (1, 10_000);
    let state = Arc::clone(&server.state);
    let mut change = |file: &str, done: u64, _total: u64| {
        if file == WEIGHTS && done > 0 {
            state.lock().unwrap().ranges = false;
        }
    };
    let reference = ModelRef::parse(REPO).unwrap();
    let path = fetch_model_with(&reference, &server.options(), &accept, &mut change).unwrap();
    server.assert_whole(&path);
}

#[test]
fn no_network_says_so_and_names_the_copy_that_is_there() {
    let server = Server::tiny();
    let path = server.fetch(REPO).unwrap();
    let mut options = server.options();
    // A port that was free a moment ago: nobody listens.
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    options.endpoint = Some(format!("http://{free}"));
    let (kind, error) = server.error(REPO, &options);
    assert_eq!(kind, HubErrorKind::Network);
    assert!(
        error.starts_with("tiny/llama: the hub cannot be reached"),
        "{error}"
    );
    assert!(error.ends_with("set HF_HUB_OFFLINE=1 to use it"), "{error}");
    options.offline = true;
    assert_eq!(server.fetch_with(REPO, &options).unwrap(), path);
}

#[test]
fn offline_without_a_copy_names_the_repository_and_what_to_do() {
    let server = Server::tiny();
    let mut offline = server.options();
    offline.offline = true;
    let (kind, error) = server.error(REPO, &offline);
    assert_eq!(kind, HubErrorKind::Offline);
    insta::assert_snapshot!(error, @"tiny/llama: HF_HUB_OFFLINE is set, and [CACHE] lacks any of its files for it; unset it once to download, or give a folder or a .gguf file");
    assert!(server.requests().is_empty());
}

#[test]
fn a_cache_that_cannot_be_written_is_told() {
    let server = Server::tiny();
    let mut options = server.options();
    options.cache = server.cache.path().join("file");
    std::fs::write(&options.cache, "in the way").unwrap();
    let (kind, error) = server.error(REPO, &options);
    assert_eq!(kind, HubErrorKind::Disk, "{error}");
    assert!(
        error.contains("set HF_HUB_CACHE to another folder"),
        "{error}"
    );
}

// ---- refusals -----------------------------------------------------------------------------------

#[test]
fn what_does_not_exist_is_told_apart() {
    let server = Server::tiny();
    let options = server.options();
    let (kind, error) = server.error("tiny/lama", &options);
    assert_eq!(kind, HubErrorKind::NotFound);
    insta::assert_snapshot!(error, @"tiny/lama: the hub answered 404: there is no such repository, and no such path here; check the name");
    let (kind, error) = server.error("tiny/llama@v2", &options);
    assert_eq!(kind, HubErrorKind::NotFound);
    insta::assert_snapshot!(error, @"tiny/llama@v2: the hub answered 404: the repository has no such revision; check the name");
}

#[test]
fn a_gated_model_asks_for_a_token() {
    let server = Server::tiny();
    server.state().token = Some("hf_secret");
    let mut options = server.options();
    let (kind, error) = server.error(REPO, &options);
    assert_eq!(kind, HubErrorKind::Refused);
    insta::assert_snapshot!(error, @"tiny/llama: the hub answered 401: the repository is gated or private, or does not exist (no token was sent); check its name, accept its licence on its page, and set HF_TOKEN to a token that may read it");
    options.token = Some("hf_other".into());
    let (_, error) = server.error(REPO, &options);
    assert!(
        error.contains("the token that was sent may not read it"),
        "{error}"
    );
    assert!(!error.contains("hf_other"), "{error}");
    options.token = Some("hf_secret".into());
    server.assert_whole(&server.fetch_with(REPO, &options).unwrap());
}

#[test]
fn files_may_be_refused_where_the_list_is_not() {
    let server = Server::tiny();
    for (status, kind) in [
        (403, HubErrorKind::Refused),
        (404, HubErrorKind::NotFound),
        (503, HubErrorKind::Server),
    ] {
        server.state().file_status = Some(status);
        let (seen, error) = server.error(REPO, &server.options());
        assert_eq!(seen, kind, "{error}");
        assert!(
            error.contains(&format!("answered {status} for config.json")),
            "{error}"
        );
    }
}

#[test]
fn what_is_not_accepted_is_refused_before_its_weights() {
    let server = Server::tiny();
    let refuse = |config: &Path| {
        let config = std::fs::read_to_string(config).unwrap();
        Err(format!("this program does not run {config}"))
    };
    let reference = ModelRef::parse(REPO).unwrap();
    let fetched = fetch_model_with(&reference, &server.options(), &refuse, &mut |_, _, _| {});
    let error = fetched.unwrap_err();
    assert_eq!(error.kind, HubErrorKind::Content);
    insta::assert_snapshot!(error, @r#"tiny/llama: this program does not run {"model_type": "llama"}"#);
    assert!(!server.requests().iter().any(|line| line.contains(WEIGHTS)));
}

#[test]
fn names_from_the_hub_stay_in_their_folder() {
    let mut files = sharded_files();
    let index = json!({"weight_map": {"model.norm.weight": "../../../escaped"}});
    files.insert(INDEX.into(), index.to_string().into_bytes());
    let server = Server::start(files);
    let error = server.fetch(REPO).unwrap_err().to_string();
    assert!(error.contains("which is no file name"), "{error}");

    let server = Server::tiny();
    server.state().etag = Some("../../escaped");
    let (kind, error) = server.error(REPO, &server.options());
    assert_eq!(kind, HubErrorKind::Content);
    assert!(error.contains("its ETag is `../../escaped`"), "{error}");

    let server = Server::tiny();
    server.state().commit = "../escaped".into();
    let (kind, error) = server.error(REPO, &server.options());
    assert_eq!(kind, HubErrorKind::Content);
    assert!(error.contains("its commit is `../escaped`"), "{error}");
}

#[test]
fn an_answer_that_is_no_hub_s_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            let _ = stream.write_all(&plain(200, "", b"<html>Welcome</html>"));
        }
    });
    let server = Server::tiny();
    let mut options = server.options();
    options.endpoint = Some(format!("http://{address}"));
    let (kind, error) = server.error(REPO, &options);
    assert_eq!(kind, HubErrorKind::Content);
    assert!(error.contains("the answer is no hub's"), "{error}");
}
