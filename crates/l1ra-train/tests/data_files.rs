//! Several files, patterns, weights, held-out samples, the cache: the same samples whatever the
//! number of threads and whatever is in the cache.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{fs, path::Path, sync::Mutex};

use l1ra_models::{ChatTemplate, TextTokenizer};
use l1ra_train::data::{
    DataForm, DataOptions, DataProgress, DataSource, PreparedData, RowCache, TrainOn,
    prepare_data_with, read_sources,
};
use tempfile::TempDir;

const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + \
                      '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}\
                      {{ '<|im_start|>assistant\n' }}{% endif %}";

struct Place {
    dir: TempDir,
    tokenizer: TextTokenizer,
    template: ChatTemplate,
}

impl Place {
    /// Three files of different forms, 40 and 60 records and one text.
    fn new() -> Self {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/finetune/model");
        let place = Self {
            dir: TempDir::new().unwrap(),
            tokenizer: TextTokenizer::from_dir(&model).unwrap(),
            template: ChatTemplate::new(CHATML, "", "").unwrap(),
        };
        let pair =
            |i: usize| format!("{{\"prompt\": \"Say {i}.\", \"completion\": \"It is {i}.\"}}\n");
        place.write("a.jsonl", &(0..40).map(pair).collect::<String>());
        let task = |i: usize| {
            format!(
                "{{\"instruction\": \"Add one.\", \"input\": \"{i}\", \"output\": \"{}\"}}",
                i + 1
            )
        };
        let tasks: Vec<String> = (0..60).map(task).collect();
        place.write("b.json", &format!("[{}]", tasks.join(",\n")));
        place.write("c.txt", &"The river runs under the bridge. ".repeat(30));
        place
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn source(&self, name: &str) -> DataSource {
        DataSource::new(self.dir.path().join(name).display().to_string())
    }

    fn options(&self) -> DataOptions {
        DataOptions {
            train: ["a.jsonl", "b.json", "c.txt"]
                .map(|name| self.source(name))
                .to_vec(),
            max_length: 48,
            ..Default::default()
        }
    }

    fn prepare(&self, options: &DataOptions, cache: &RowCache) -> Result<PreparedData, String> {
        let template = Some(&self.template);
        let prepared = prepare_data_with(options, &self.tokenizer, template, cache, &());
        let dir = self.dir.path().display().to_string();
        prepared.map_err(|error| error.to_string().replace(&dir, "[dir]"))
    }

    fn sources(&self, prepared: &PreparedData) -> String {
        let lines: Vec<String> = prepared.sources.iter().map(ToString::to_string).collect();
        lines
            .join("\n")
            .replace(&self.dir.path().display().to_string(), "[dir]")
    }
}

#[test]
fn files_of_several_forms_are_recognised_and_said() {
    let place = Place::new();
    let prepared = place.prepare(&place.options(), &RowCache::off()).unwrap();
    insta::assert_snapshot!(place.sources(&prepared), @"
    [dir]/a.jsonl: 40 records, form completion (recognised)
    [dir]/b.json: 60 records, form alpaca (recognised)
    [dir]/c.txt: 1 record, form text (recognised), 7 samples
    ");
    let all = prepared.train.len() + prepared.eval.len();
    assert_eq!(prepared.eval.len(), (all as f64 / 10.0).round() as usize);
    assert_eq!(prepared.train_rows(), prepared.train.len());
    assert!(
        prepared
            .eval
            .iter()
            .all(|sample| !prepared.train.contains(sample))
    );

    // Without a tokenizer: records and letters.
    let sources = read_sources(&place.options()).unwrap();
    let counts = |source: &l1ra_train::data::SourceFile| {
        (source.form, source.records.len(), source.characters())
    };
    let counts: Vec<_> = sources.train.iter().map(counts).collect();
    let letters: Vec<usize> = prepared
        .sources
        .iter()
        .map(|source| source.characters)
        .collect();
    assert_eq!(
        counts,
        [
            (DataForm::Completion, 40, letters[0]),
            (DataForm::Alpaca, 60, letters[1]),
            (DataForm::Text, 1, letters[2])
        ]
    );
    assert!(letters[2] == 33 * 30 && sources.eval.is_empty());
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let place = Place::new();
    let options = DataOptions {
        packing: true,
        ..place.options()
    };
    let prepare = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| place.prepare(&options, &RowCache::off()).unwrap())
    };
    let (one, four) = (prepare(1), prepare(4));
    assert_eq!(one.train, four.train);
    assert_eq!(one.eval, four.eval);
    assert_eq!(one.packing, four.packing);
    assert!(one.train_rows() < one.train.len());

    let other = DataOptions {
        seed: 1,
        ..options.clone()
    };
    let other = place.prepare(&other, &RowCache::off()).unwrap();
    assert_ne!(one.eval, other.eval);
}

#[test]
fn weights_are_how_often_a_source_is_seen() {
    let place = Place::new();
    let mut options = place.options();
    options.train.truncate(2);
    options.eval = vec![place.source("c.txt")];
    options.train[0].weight = 2.5;
    options.train[1].weight = 0.25;
    let prepared = place.prepare(&options, &RowCache::off()).unwrap();
    assert_eq!(prepared.train.len(), 100 + 15);
    assert_eq!(prepared.train_stats.samples, 115);
    insta::assert_snapshot!(place.sources(&prepared), @"
    [dir]/a.jsonl: 40 records, form completion (recognised), each seen 2.5 times an epoch
    [dir]/b.json: 60 records, form alpaca (recognised), each seen 0.25 times an epoch
    [dir]/c.txt: 1 record, form text (recognised), 7 samples
    ");

    // Held out first, so that no repeated sample is evaluated.
    options.eval = Vec::new();
    let prepared = place.prepare(&options, &RowCache::off()).unwrap();
    assert_eq!(prepared.eval.len(), 10);
    assert!(
        prepared
            .eval
            .iter()
            .all(|sample| !prepared.train.contains(sample))
    );
}

#[test]
fn patterns_and_evaluation_rows() {
    let place = Place::new();
    let mut options = place.options();
    options.train = vec![place.source("*.json*")];
    options.eval = vec![place.source("a.jsonl")];
    options.eval_rows = 7;
    let prepared = place.prepare(&options, &RowCache::off()).unwrap();
    assert_eq!((prepared.train.len(), prepared.eval.len()), (100, 7));
    assert_eq!(prepared.eval, prepared.train[..7]);
    let note = "7 of the 7 evaluation samples are in the training data as well";
    assert_eq!(prepared.notes, [note]);

    options.eval = Vec::new();
    assert_eq!(
        place
            .prepare(&options, &RowCache::off())
            .unwrap()
            .eval
            .len(),
        7
    );
    options.train = vec![place.source("*.csv")];
    let said = place.prepare(&options, &RowCache::off()).unwrap_err();
    insta::assert_snapshot!(said, @"[dir]/*.csv: this pattern matches no file; it begins in the folder where the command runs");
}

#[test]
fn the_cache_changes_nothing_but_the_time() {
    let place = Place::new();
    let folder = place.dir.path().join("cache");
    let cache = RowCache::at(&folder);
    let same = |one: &PreparedData, other: &PreparedData| {
        assert_eq!(one.train, other.train);
        assert_eq!(one.eval, other.eval);
        assert_eq!(one.train_stats, other.train_stats);
        assert_eq!(one.eval_stats, other.eval_stats);
    };
    let cached = |prepared: &PreparedData| prepared.sources.iter().filter(|s| s.cached).count();
    let options = place.options();
    let plain = place.prepare(&options, &RowCache::off()).unwrap();
    let first = place.prepare(&options, &cache).unwrap();
    let second = place.prepare(&options, &cache).unwrap();
    same(&plain, &first);
    same(&plain, &second);
    assert_eq!([&plain, &first, &second].map(cached), [0, 0, 3]);

    // Damaged, truncated, of another content: made again.
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    files.sort();
    assert_eq!(files.len(), 3);
    let whole: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    let mut damaged = whole[0].clone();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    fs::write(&files[0], damaged).unwrap();
    fs::write(&files[1], &whole[1][..whole[1].len() / 2]).unwrap();
    fs::write(&files[2], &whole[0]).unwrap();
    let again = place.prepare(&options, &cache).unwrap();
    same(&plain, &again);
    assert_eq!(cached(&again), 0);
    let written: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(written == whole);

    // What rows are a function of is in the key.
    let others = [
        DataOptions {
            max_length: 47,
            ..options.clone()
        },
        DataOptions {
            train_on: TrainOn::All,
            ..options.clone()
        },
    ];
    for options in others {
        assert_eq!(cached(&place.prepare(&options, &cache).unwrap()), 0);
    }
    // What is not, is not.
    let other = DataOptions {
        seed: 5,
        eval_fraction: 0.3,
        packing: true,
        ..options.clone()
    };
    assert_eq!(cached(&place.prepare(&other, &cache).unwrap()), 3);
    place.write(
        "a.jsonl",
        "{\"prompt\": \"Say 1.\", \"completion\": \"It is 2.\"}\n",
    );
    assert_eq!(cached(&place.prepare(&options, &cache).unwrap()), 2);
    let mut changed = Place::new();
    changed.template = ChatTemplate::new(format!("{{{{ '' }}}}{CHATML}"), "", "").unwrap();
    assert_eq!(
        cached(&changed.prepare(&changed.options(), &cache).unwrap()),
        0
    );
    let mut changed = Place::new();
    changed.tokenizer.eos = [0].into();
    assert_eq!(
        cached(&changed.prepare(&changed.options(), &cache).unwrap()),
        3
    );

    // A cache that cannot be written is said, and stops nothing.
    place.write("file", "");
    let broken = RowCache::at(place.dir.path().join("file"));
    let prepared = place.prepare(&options, &broken).unwrap();
    assert_eq!(prepared.notes.len(), 1);
    assert!(
        prepared.notes[0].contains("tokenised data is not kept"),
        "{:?}",
        prepared.notes
    );
}

#[test]
fn progress_reaches_its_end() {
    #[derive(Default)]
    struct Told(Mutex<Vec<(usize, usize)>>);
    impl DataProgress for Told {
        fn advance(&self, done: usize, total: usize) {
            self.0.lock().unwrap().push((done, total));
        }
    }
    let place = Place::new();
    let told = Told::default();
    let (options, template) = (place.options(), Some(&place.template));
    prepare_data_with(
        &options,
        &place.tokenizer,
        template,
        &RowCache::off(),
        &told,
    )
    .unwrap();
    let told = told.0.into_inner().unwrap();
    assert_eq!(told.len(), 101);
    assert!(told.contains(&(101, 101)));
    assert!(told.iter().all(|(done, total)| done <= total));
}

#[test]
fn the_first_file_with_a_mistake_is_the_one_named() {
    let place = Place::new();
    place.write(
        "x.jsonl",
        "{\"text\": \"a\"}\n{\"txt\": \"b\"}\n{\"text\": \"c\"}\n{}\n",
    );
    place.write("y.jsonl", "{\"question\": \"a\"}\n");
    let mut options = place.options();
    options.train = ["a.jsonl", "x.jsonl", "y.jsonl"]
        .map(|name| place.source(name))
        .to_vec();
    for _ in 0..4 {
        let said = place.prepare(&options, &RowCache::off()).unwrap_err();
        insta::allow_duplicates! {
            insta::assert_snapshot!(said, @"[dir]/x.jsonl, line 2: has no `text` (seen: the key `txt`); the file is read as text, as its first record is (1 more line cannot be used: 4)");
        }
    }
    options.train = vec![place.source("y.jsonl")];
    insta::assert_snapshot!(place.prepare(&options, &RowCache::off()).unwrap_err(), @"[dir]/y.jsonl, line 1: has the key `question`, and so no known form; nearest: alpaca, which needs `instruction` and `output`; others need `messages`, or `conversations`, or `prompt` and `completion`, or `text`");
    options.train = vec![DataSource {
        form: Some(DataForm::Text),
        ..place.source("y.jsonl")
    }];
    insta::assert_snapshot!(place.prepare(&options, &RowCache::off()).unwrap_err(), @"[dir]/y.jsonl, line 1: has no `text` (seen: the key `question`); the file is read as text, as the options say");
    options.train = vec![place.source("a.jsonl")];
    place.write(
        "a.jsonl",
        "{\"prompt\": \"Say 1.\", \"completion\": \"It is 1.\"}\n",
    );
    insta::assert_snapshot!(place.prepare(&options, &RowCache::off()).unwrap_err(), @"[dir]/a.jsonl: holds 1 sample; training and evaluation need one each (or give evaluation data)");
}
