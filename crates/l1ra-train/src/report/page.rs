//! `report.html`: the page, filled in.

use minijinja::{
    AutoEscape, Environment, Error, Value, context, syntax::SyntaxConfig, value::Serde,
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{
    error::TrainError,
    report::{
        adapted::most_adapted,
        chart::{self, Chart},
        charts::Charts,
        data,
        heat_table::heat,
        overview::facts,
        record::RunRecord,
        tables::{modules, statistics, updates},
    },
};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page as text: everything it needs is in it.
pub(super) fn page(record: &RunRecord, charts: &Charts) -> Result<String, TrainError> {
    filled("report.html", PAGE, values(record, charts))
}

/// A template of ours with its values: the text of the file `name`.
pub(crate) fn filled(name: &str, template: &str, values: Value) -> Result<String, TrainError> {
    let filled = environment(template).and_then(|environment| {
        let template = environment.get_template("page.html")?;
        template.render(values)
    });
    // It fails in our tests or not at all.
    filled.map_err(|error| TrainError::io(name, std::io::Error::other(error)))
}

/// The style of a page and of the charts in it.
pub(crate) fn style() -> Value {
    Value::from_safe_string(format!("{}\n{STYLE}", chart::STYLE))
}

fn environment(template: &str) -> Result<Environment<'_>, Error> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()?;
    environment.set_syntax(syntax);
    environment.add_template("page.html", template)?;
    Ok(environment)
}

/// Only what this crate wrote as markup is marked as safe; all else is escaped.
fn values(record: &RunRecord, charts: &Charts) -> Value {
    let adaptation = most_adapted(record);
    let history = charts.history.as_ref();
    let safe = Value::from_safe_string;
    let inline = |chart: Option<&Chart>| chart.map(|chart| safe(chart.inline()));
    context! {
        style => style(),
        script => safe(SCRIPT.to_owned()),
        script_hash => safe(script_hash()),
        data => safe(data::json(record, charts)),
        head => Serde(head(record)),
        notes => Serde(&record.notes),
        sentence => adaptation.to_string(),
        facts => Serde(facts(record)),
        heat => history.map(|history| Serde(heat(history))),
        updates => history.map(|history| Serde(updates(record, history))),
        modules => Serde(modules(&adaptation)),
        loss => inline(Some(&charts.loss)),
        rate => inline(Some(&charts.rate)),
        norm => inline(Some(&charts.norm)),
        mean_ranks => inline(charts.modules.as_ref()),
        gates => inline(charts.gates.as_ref()),
        parameters => inline(charts.parameters.as_ref()),
        statistics => statistics(record).map(Serde),
        recipe => record.recipe.as_deref(),
    }
}

/// The script's hash, as a content security policy takes it: nothing else may run in the page.
fn script_hash() -> String {
    base64(&Sha256::digest(SCRIPT.as_bytes()))
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |bits: u32| {
        LETTERS
            .get(bits as usize & 63)
            .map_or('=', |l| char::from(*l))
    };
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for index in 0..4 {
            let shift = 18 - 6 * index;
            let padding = index as usize > chunk.len();
            text.push(if padding { '=' } else { letter(bits >> shift) });
        }
    }
    text
}

#[derive(Serialize)]
struct Head {
    model: Option<String>,
    details: Vec<String>,
    version: Option<String>,
}

fn head(record: &RunRecord) -> Head {
    let info = &record.info;
    let date = info.started.as_ref().map(|started| {
        let text = started.replace('T', " ");
        text.strip_suffix('Z')
            .map_or(text.clone(), |t| format!("{t} UTC"))
    });
    let device = info.device.as_ref().map(|device| match &info.dtype {
        Some(dtype) => format!("{device}, {dtype}"),
        None => device.clone(),
    });
    Head {
        model: info.model.clone(),
        details: [date, device].into_iter().flatten().collect(),
        version: info.version.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_in_rfc_4648() {
        let encoded = [&b""[..], b"f", b"fo", b"foo", b"foob", b"fooba", b"foobar"].map(base64);
        let expected = [
            "", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy",
        ];
        assert_eq!(encoded, expected.map(String::from));
    }
}
