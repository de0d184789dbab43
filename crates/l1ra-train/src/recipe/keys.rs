//! The reference of all recipe keys, made from the fields' documentation.

use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::recipe::Recipe;

/// One key of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeyDoc {
    /// The dotted key, as `--set` takes it: `train.steps`.
    pub key: String,
    /// What it takes, in words: `a whole number`, `one of cosine, linear, constant`.
    pub kind: String,
    /// Default, where the key has one.
    pub default: Option<String>,
    /// What it means.
    pub doc: String,
    /// The values of an enumeration.
    pub choices: Vec<String>,
    /// Whether only text is taken: a value on the command line then needs no quotes.
    pub is_text: bool,
    /// Whether keys below this one are the user's own (a pattern, say).
    pub is_open: bool,
}

/// The JSON schema of a recipe, for editors.
pub fn schema() -> Schema {
    schema_of::<Recipe>()
}

fn schema_of<T: JsonSchema>() -> Schema {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>()
}

/// Every key of a recipe, sections in the order of [`Recipe`].
pub fn keys() -> Vec<KeyDoc> {
    keys_of::<Recipe>()
}

/// Every field of an options type, with its documentation: for the help of a program.
pub fn keys_of<T: JsonSchema>() -> Vec<KeyDoc> {
    let mut found = Vec::new();
    if let Some(root) = schema_of::<T>().as_object() {
        collect("", root, &mut found);
    }
    found
}

fn collect(prefix: &str, object: &Map<String, Value>, found: &mut Vec<KeyDoc>) {
    let properties = object.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        let Some(property) = property.as_object() else {
            continue;
        };
        let key = match prefix {
            "" => name.clone(),
            _ => format!("{prefix}.{name}"),
        };
        if property.contains_key("properties") {
            collect(&key, property, found);
        } else {
            found.push(key_doc(key, property));
        }
    }
}

/// The schema of an option that may be left out as that of its values.
fn without_null(property: &Map<String, Value>) -> Map<String, Value> {
    let mut property = property.clone();
    let Some(Value::Array(forms)) = property.remove("anyOf") else {
        return property;
    };
    let is_null = |form: &&Value| form.get("type") == Some(&Value::from("null"));
    if let Some(Value::Object(form)) = forms.iter().find(|form| !is_null(form)) {
        for (key, value) in form {
            property.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    property
}

fn key_doc(key: String, property: &Map<String, Value>) -> KeyDoc {
    let property = &without_null(property);
    let text = |key: &str| property.get(key).and_then(Value::as_str);
    let choices = choices(property);
    let types = types(property);
    let is_open = types.contains(&"object");
    let kind = match text("x-kind") {
        Some(kind) => kind.to_string(),
        None if !choices.is_empty() => format!("one of {}", choices.join(", ")),
        None => kind(&types, property),
    };
    let doc = text("description").unwrap_or_default();
    KeyDoc {
        key,
        kind,
        default: property.get("default").and_then(default),
        doc: doc.split_whitespace().collect::<Vec<_>>().join(" "),
        is_text: !choices.is_empty() || types == ["string"],
        choices,
        is_open,
    }
}

/// The schema's types, `null` left out.
fn types(property: &Map<String, Value>) -> Vec<&str> {
    let types = match property.get("type") {
        Some(Value::String(name)) => vec![name.as_str()],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    types.into_iter().filter(|name| *name != "null").collect()
}

/// The values of an enumeration, whose variants with a documentation are schemas of their own.
fn choices(property: &Map<String, Value>) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(String::from);
    let list = |key: &str| property.get(key).and_then(Value::as_array);
    let documented = list("oneOf").into_iter().flatten();
    let plain = list("enum").into_iter().flatten();
    documented
        .flat_map(|variant| {
            let many = variant.get("enum").and_then(Value::as_array);
            let one = variant.get("const").into_iter();
            one.chain(many.into_iter().flatten())
        })
        .chain(plain)
        .filter_map(text)
        .collect()
}

fn kind(types: &[&str], property: &Map<String, Value>) -> String {
    let unsigned = property.get("minimum") == Some(&Value::from(0));
    match types {
        ["integer"] if unsigned => "a whole number, 0 or more".into(),
        ["integer"] => "a whole number".into(),
        ["number"] => "a number".into(),
        ["boolean"] => "true or false".into(),
        ["string"] => "a text".into(),
        ["object"] => "a table".into(),
        ["array"] => "a list".into(),
        _ => "a value".into(),
    }
}

fn default(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::Array(items) if items.is_empty() => None,
        Value::Object(items) if items.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// The reference as text: a section a paragraph, one key a line, its meaning below.
pub fn reference() -> String {
    let mut text = String::new();
    let mut section = String::new();
    for doc in keys() {
        let (place, _) = doc.key.rsplit_once('.').unwrap_or(("", &doc.key));
        if place != section {
            section = place.to_string();
            text.push('\n');
        }
        let default = doc
            .default
            .map_or_else(String::new, |d| format!(" [default:\u{a0}{d}]"));
        let lines = wrap(&format!("{}{default}", doc.doc), 76);
        text += &format!("  {}: {}\n", doc.key, doc.kind);
        for line in lines {
            text += &format!("      {}\n", line.replace('\u{a0}', " "));
        }
    }
    text
}

/// Breaks `text` into lines at blanks, not at `\u{a0}`.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doc(key: &str) -> KeyDoc {
        let found = keys().into_iter().find(|doc| doc.key == key);
        found.unwrap_or_else(|| panic!("no key {key}"))
    }

    #[test]
    fn a_key_has_its_field_s_documentation_kind_and_default() {
        let rank = doc("adapters.rank");
        assert_eq!(rank.kind, "a whole number, 0 or more");
        assert_eq!(rank.default.as_deref(), Some("16"));
        assert!(rank.doc.starts_with("Initial rank"), "{}", rank.doc);
        assert_eq!(
            doc("adapters.policy").choices,
            ["l1ra", "lora", "gradient", "lasso", "reference", "fixed"]
        );
        assert_eq!(
            doc("train.schedule").kind,
            "one of cosine, linear, constant"
        );
        assert_eq!(doc("train.steps").kind, "a whole number, 0 or more");
        assert_eq!(doc("train.epochs").default, None);
        assert_eq!(doc("adapters.budget").kind, "one of ranks, parameters");
        assert!(doc("adapters.open").kind.starts_with("\"all-linear\""));
        assert!(doc("adapters.rank_pattern").is_open);
        assert!(doc("output").is_text && !doc("train.lr").is_text);
    }

    #[test]
    fn every_key_is_documented() {
        for key in keys() {
            assert!(!key.doc.is_empty(), "{} has no documentation", key.key);
            assert_ne!(key.kind, "a value", "{}", key.key);
        }
    }
}
