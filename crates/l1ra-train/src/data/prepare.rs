//! [`prepare_data`]: files to samples.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use l1ra_models::{ChatTemplate, TextTokenizer};
use rayon::prelude::*;
use serde::Serialize;

use crate::{
    data::{
        DataFile, DataForm, DataOptions, DataStats, Encoder, Packing, RowCache, Sample, SourceFile,
        cache::Key,
        record::Flaw,
        rows::{FileRows, Row},
        split::{Split, mix},
        stats::Dropped,
    },
    error::TrainError,
    plural::counted,
};

/// Told how far tokenisation is. Called from several threads.
pub trait DataProgress: Sync {
    /// `done` of `total` records are tokenised. The total grows while files are still being read;
    /// files that come from the cache are in neither.
    fn advance(&self, done: usize, total: usize) {
        let _ = (done, total);
    }
}

/// Nobody is told.
impl DataProgress for () {}

/// The samples of a run.
#[derive(Clone, Debug)]
pub struct PreparedData {
    /// Training samples, in the order of the files; those of a weighted source several times.
    pub train: Vec<Sample>,
    /// Evaluation samples, in the order of the files.
    pub eval: Vec<Sample>,
    /// Which training samples share a row, with [`DataOptions::packing`].
    pub packing: Option<Packing>,
    /// Figures of the training samples.
    pub train_stats: DataStats,
    /// Figures of the evaluation samples.
    pub eval_stats: DataStats,
    /// What became of every file, training files first.
    pub sources: Vec<SourceReport>,
    /// What the user should know besides: samples in both sets, a cache that cannot be written.
    pub notes: Vec<String>,
}

impl PreparedData {
    /// Rows of an epoch: packed rows, or samples.
    pub fn train_rows(&self) -> usize {
        self.packing
            .as_ref()
            .map_or(self.train.len(), |packing| packing.rows().len())
    }
}

/// The samples of some files, for evaluation alone.
#[derive(Clone, Debug)]
pub struct PreparedSet {
    /// Samples, in the order of the files.
    pub samples: Vec<Sample>,
    /// Their figures.
    pub stats: DataStats,
    /// What became of every file.
    pub sources: Vec<SourceReport>,
    /// What the user should know besides.
    pub notes: Vec<String>,
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceReport {
    /// The file.
    pub path: PathBuf,
    /// The form of its records.
    pub form: DataForm,
    /// Whether the form was recognised, and not said.
    pub recognised: bool,
    /// Whether its rows came from the cache.
    pub cached: bool,
    /// Records.
    pub records: usize,
    /// Letters of all records.
    pub characters: usize,
    /// Samples, before any are held out.
    pub samples: usize,
    /// How often each sample is seen in an epoch.
    pub weight: f64,
    /// Whether it is for training or for evaluation.
    pub is_train: bool,
}

impl fmt::Display for SourceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            form,
            records,
            samples,
            weight,
            ..
        } = self;
        let path = self.path.display();
        let read = counted(*records, "record");
        let how = if self.recognised { " (recognised)" } else { "" };
        write!(f, "{path}: {read}, form {form}{how}")?;
        if samples != records {
            write!(f, ", {}", counted(*samples, "sample"))?;
        }
        if *weight != 1.0 {
            write!(f, ", each seen {weight} times an epoch")?;
        }
        f.write_str(if self.cached { ", from the cache" } else { "" })
    }
}

/// Reads and tokenises the data of a run, in parallel, with the user's cache if the options say so.
///
/// The result is a function of the options, the files, the tokenizer and the template, whatever the
/// number of threads and whatever is in the cache.
///
/// # Errors
/// Options outside their range; a file that cannot be read or is of an unknown kind; a record that
/// cannot be used, with its line; no sample with a target, or too few to hold one out.
pub fn prepare_data(
    options: &DataOptions,
    tokenizer: &TextTokenizer,
    template: Option<&ChatTemplate>,
    progress: &dyn DataProgress,
) -> Result<PreparedData, TrainError> {
    let cache = cache_of(options);
    prepare_data_with(options, tokenizer, template, &cache, progress)
}

/// [`prepare_data`] with a cache of the caller's.
///
/// # Errors
/// As that.
pub fn prepare_data_with(
    options: &DataOptions,
    tokenizer: &TextTokenizer,
    template: Option<&ChatTemplate>,
    cache: &RowCache,
    progress: &dyn DataProgress,
) -> Result<PreparedData, TrainError> {
    options.validate()?;
    let files = options.files()?;
    let tokenise = Tokenise::new(options, tokenizer, template, cache, progress)?;
    let all: Vec<&DataFile> = files.train.iter().chain(&files.eval).collect();
    let mut read = tokenise.files(&all)?;
    let eval = read.split_off(files.train.len());
    let mut sources: Vec<SourceReport> = Vec::new();
    sources.extend(
        files
            .train
            .iter()
            .zip(&read)
            .map(|(f, r)| r.report(f, true)),
    );
    sources.extend(
        files
            .eval
            .iter()
            .zip(&eval)
            .map(|(f, r)| r.report(f, false)),
    );
    let dropped = |files: &[FileRead]| Dropped {
        too_long: files.iter().map(|file| file.rows.dropped.too_long).sum(),
        without_target: files
            .iter()
            .map(|file| file.rows.dropped.without_target)
            .sum(),
    };
    let (train_dropped, eval_dropped) = (dropped(&read), dropped(&eval));

    let mut split = Split {
        train: read.into_iter().map(|file| file.rows.rows).collect(),
        eval: eval.into_iter().flat_map(|file| file.rows.rows).collect(),
    };
    let first = &files.train[0].path;
    require(
        split.train.iter().any(|rows| !rows.is_empty()),
        first,
        options,
    )?;
    let mut notes = Vec::new();
    if files.eval.is_empty() {
        split.hold_out(options, first)?;
    } else {
        require(!split.eval.is_empty(), &files.eval[0].path, options)?;
        keep_first(&mut split.eval, options.eval_rows);
        notes.extend(split.shared());
    }
    let train: Vec<Row> = files
        .train
        .iter()
        .zip(split.train)
        .enumerate()
        .flat_map(|(index, (file, rows))| mix(rows, file.weight, options.seed, index))
        .collect();
    require(!train.is_empty(), first, options)?;
    notes.extend(cache.complaint());
    let (train, train_stats) = finished(train, train_dropped);
    let (eval, eval_stats) = finished(split.eval, eval_dropped);
    let pack = || Packing::new(&train, options.max_length, options.seed);
    Ok(PreparedData {
        packing: options.packing.then(pack),
        train,
        eval,
        train_stats,
        eval_stats,
        sources,
        notes,
    })
}

/// Reads and tokenises the evaluation data alone; [`DataOptions::train`] may be empty.
///
/// # Errors
/// No evaluation data, and as [`prepare_data`].
pub fn prepare_eval_data(
    options: &DataOptions,
    tokenizer: &TextTokenizer,
    template: Option<&ChatTemplate>,
    progress: &dyn DataProgress,
) -> Result<PreparedSet, TrainError> {
    options.validate_values()?;
    let files = options.files()?.eval;
    let Some(first) = files.first() else {
        return Err(TrainError::Option {
            field: "data.eval",
            seen: "(nothing)".into(),
            expected: "a file, a pattern such as data/*.jsonl, or a list of them".into(),
        });
    };
    let cache = cache_of(options);
    let tokenise = Tokenise::new(options, tokenizer, template, &cache, progress)?;
    let read = tokenise.files(&files.iter().collect::<Vec<_>>())?;
    let sources = files
        .iter()
        .zip(&read)
        .map(|(file, read)| read.report(file, false));
    let sources = sources.collect();
    let mut dropped = Dropped::default();
    let mut rows = Vec::new();
    for file in read {
        dropped.too_long += file.rows.dropped.too_long;
        dropped.without_target += file.rows.dropped.without_target;
        rows.extend(file.rows.rows);
    }
    require(!rows.is_empty(), &first.path, options)?;
    keep_first(&mut rows, options.eval_rows);
    let (samples, stats) = finished(rows, dropped);
    Ok(PreparedSet {
        samples,
        stats,
        sources,
        notes: cache.complaint().into_iter().collect(),
    })
}

fn cache_of(options: &DataOptions) -> RowCache {
    if options.cache {
        RowCache::of_user()
    } else {
        RowCache::off()
    }
}

fn keep_first(rows: &mut Vec<Row>, most: usize) {
    if most > 0 {
        rows.truncate(most);
    }
}

fn finished(rows: Vec<Row>, dropped: Dropped) -> (Vec<Sample>, DataStats) {
    let stats = DataStats::new(rows.iter().map(|row| (&row.sample, row.lost)), dropped);
    (rows.into_iter().map(|row| row.sample).collect(), stats)
}

fn require(holds: bool, path: &Path, options: &DataOptions) -> Result<(), TrainError> {
    if holds {
        return Ok(());
    }
    let detail = format!(
        "holds no sample with a target within the first {} tokens; \
         raise max_length or train on all tokens",
        options.max_length
    );
    Err(TrainError::Data {
        path: path.into(),
        detail,
    })
}

/// Turns files into rows.
struct Tokenise<'a> {
    options: &'a DataOptions,
    encoder: Encoder<'a>,
    cache: &'a RowCache,
    /// What all files' keys have in common.
    common: Vec<u8>,
    progress: &'a dyn DataProgress,
    done: AtomicUsize,
    total: AtomicUsize,
}

/// The rows of a file.
struct FileRead {
    rows: FileRows,
    cached: bool,
}

impl FileRead {
    fn report(&self, file: &DataFile, is_train: bool) -> SourceReport {
        let rows = &self.rows;
        SourceReport {
            path: file.path.clone(),
            form: rows.form,
            recognised: file.form == DataForm::Auto,
            cached: self.cached,
            records: rows.records,
            characters: rows.characters,
            samples: rows.rows.len(),
            weight: file.weight,
            is_train,
        }
    }
}

impl<'a> Tokenise<'a> {
    fn new(
        options: &'a DataOptions,
        tokenizer: &'a TextTokenizer,
        template: Option<&'a ChatTemplate>,
        cache: &'a RowCache,
        progress: &'a dyn DataProgress,
    ) -> Result<Self, TrainError> {
        let common = if cache.is_on() {
            fingerprint(options, tokenizer, template)?
        } else {
            Vec::new()
        };
        Ok(Self {
            options,
            encoder: Encoder::new(tokenizer, template, options)?,
            cache,
            common,
            progress,
            done: AtomicUsize::new(0),
            total: AtomicUsize::new(0),
        })
    }

    /// Reads all files, in parallel; the first error is that of the first file that has one.
    fn files(&self, files: &[&DataFile]) -> Result<Vec<FileRead>, TrainError> {
        let read: Vec<_> = files.par_iter().map(|file| self.file(file)).collect();
        read.into_iter().collect()
    }

    fn file(&self, file: &DataFile) -> Result<FileRead, TrainError> {
        let path = &file.path;
        let bytes = std::fs::read(path).map_err(|error| TrainError::io(path, error))?;
        let ending = path.extension().unwrap_or_default().as_encoded_bytes();
        let parts: [&[u8]; 4] = [&self.common, file.form.name().as_bytes(), ending, &bytes];
        let key = self.cache.is_on().then(|| Key::new(&parts));
        if let Some(rows) = key.as_ref().and_then(|key| self.cache.load(key)) {
            return Ok(FileRead { rows, cached: true });
        }
        let source = SourceFile::parse(file, &bytes)?;
        drop(bytes);
        let rows = self.encode(source)?;
        if let Some(key) = &key {
            self.cache.store(key, &rows);
        }
        Ok(FileRead {
            rows,
            cached: false,
        })
    }

    fn encode(&self, mut source: SourceFile) -> Result<FileRows, TrainError> {
        if let Some(error) = source.error() {
            return Err(error);
        }
        self.total
            .fetch_add(source.records.len(), Ordering::Relaxed);
        let encoded: Vec<Result<Vec<Sample>, Flaw>> = source
            .records
            .par_iter()
            .map(|record| {
                let samples = self.encoder.encode(&record.content);
                let done = 1 + self.done.fetch_add(1, Ordering::Relaxed);
                self.progress
                    .advance(done, self.total.load(Ordering::Relaxed));
                samples
            })
            .collect();
        let mut rows = FileRows {
            form: source.form,
            records: source.records.len(),
            characters: source.characters(),
            dropped: Dropped::default(),
            rows: Vec::new(),
        };
        let places: Vec<usize> = source.records.iter().map(|record| record.place).collect();
        for (place, samples) in places.into_iter().zip(encoded) {
            match samples {
                Ok(samples) => {
                    let DataOptions {
                        max_length,
                        too_long,
                        ..
                    } = *self.options;
                    for sample in samples {
                        rows.push(sample, max_length, too_long);
                    }
                }
                Err(flaw) => source.add_flaw(place, flaw),
            }
        }
        source.error().map_or(Ok(rows), Err)
    }
}

/// What the rows of every file are a function of, besides the file.
fn fingerprint(
    options: &DataOptions,
    tokenizer: &TextTokenizer,
    template: Option<&ChatTemplate>,
) -> Result<Vec<u8>, TrainError> {
    const SECONDS_OF_DAY: u64 = 86_400;
    let text = tokenizer.to_json()?;
    let parts: Option<Vec<&str>> = template.map(|template| template.parts().collect());
    // A template may write the date of the day.
    let dated = parts
        .iter()
        .flatten()
        .any(|part| part.contains("strftime_now"));
    let today = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let today = today.map_or(0, |now| now.as_secs() / SECONDS_OF_DAY);
    let choices = format!(
        "{:?} {:?} {:?} {:?} {:?}",
        options.max_length,
        options.train_on,
        options.too_long,
        tokenizer.end_of_text(),
        dated.then_some(today),
    );
    let template = format!("{parts:?}");
    Ok([text, template, choices].join("\0").into_bytes())
}
