//! Parquet files: text columns, and messages as a list of structures.
#![cfg(feature = "parquet")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{fs::File, path::Path, sync::Arc};

use l1ra_train::data::{DataForm, DataOptions, DataSource, read_sources};
use parquet::{
    data_type::{ByteArray, ByteArrayType, Int64Type},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use tempfile::TempDir;

/// A column: its values, and for lists their definition and repetition levels.
enum Column<'a> {
    Texts(&'a [&'a str], Option<(&'a [i16], &'a [i16])>),
    Numbers(&'a [i64]),
}

fn write(path: &Path, schema: &str, columns: &[Column<'_>]) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder().build();
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for column in columns {
        let mut writer = group.next_column().unwrap().unwrap();
        match column {
            Column::Texts(texts, levels) => {
                let values: Vec<ByteArray> = texts.iter().map(|text| (*text).into()).collect();
                let (definition, repetition) = levels.unzip();
                let typed = writer.typed::<ByteArrayType>();
                typed.write_batch(&values, definition, repetition).unwrap();
            }
            Column::Numbers(values) => {
                let typed = writer.typed::<Int64Type>();
                typed.write_batch(values, None, None).unwrap();
            }
        }
        writer.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

fn records(path: &Path) -> (DataForm, String) {
    let options = DataOptions {
        train: vec![DataSource::new(path.display().to_string())],
        ..Default::default()
    };
    let source = read_sources(&options).unwrap().train.remove(0);
    assert!(source.malformed.is_empty(), "{:?}", source.malformed);
    let records: Vec<String> = source
        .records
        .iter()
        .map(|record| format!("{} {:?}", record.place, record.content))
        .collect();
    (source.form, records.join("\n"))
}

#[test]
fn text_columns() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("pairs.parquet");
    let schema = "message pairs {
        required int64 id;
        required binary prompt (UTF8);
        required binary completion (UTF8);
    }";
    let columns = [
        Column::Numbers(&[1, 2]),
        Column::Texts(&["Say hi.", "Größe?"], None),
        Column::Texts(&["Hi.", "Groß."], None),
    ];
    write(&path, schema, &columns);
    let (form, records) = records(&path);
    assert_eq!(form, DataForm::Completion);
    insta::assert_snapshot!(records, @r#"
    1 Pair { prompt: "Say hi.", completion: "Hi." }
    2 Pair { prompt: "Größe?", completion: "Groß." }
    "#);
}

#[test]
fn messages_as_a_list_of_structures() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("chat.parquet");
    let schema = "message chat {
        optional group messages (LIST) {
            repeated group list {
                optional group element {
                    optional binary role (UTF8);
                    optional binary content (UTF8);
                }
            }
        }
    }";
    let levels: (&[i16], &[i16]) = (&[4, 4, 4, 4], &[0, 1, 0, 1]);
    let columns = [
        Column::Texts(&["user", "assistant", "user", "assistant"], Some(levels)),
        Column::Texts(&["Hi.", "Yes.", "Who?", "Me."], Some(levels)),
    ];
    write(&path, schema, &columns);
    let (form, records) = records(&path);
    assert_eq!(form, DataForm::Messages);
    insta::assert_snapshot!(records, @r#"
    1 Chat { messages: [Message { role: User, content: "Hi." }, Message { role: Assistant, content: "Yes." }], completion: 1 }
    2 Chat { messages: [Message { role: User, content: "Who?" }, Message { role: Assistant, content: "Me." }], completion: 1 }
    "#);
}

#[test]
fn a_file_that_is_none() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("none.parquet");
    std::fs::write(&path, "no Parquet at all").unwrap();
    let options = DataOptions {
        train: vec![DataSource::new(path.display().to_string())],
        ..Default::default()
    };
    let said = read_sources(&options).unwrap_err().to_string();
    assert!(
        said.contains("none.parquet: is no Parquet file that can be read: "),
        "{said}"
    );
}
