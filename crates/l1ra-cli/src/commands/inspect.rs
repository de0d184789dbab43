//! `l1ra inspect`: what a model, adapter or data file holds.

use anyhow::Result;
use l1ra_train::data::{DataInspection, inspect_data};
use serde::Serialize;

use crate::{args::InspectArgs, failure::mistake, output::Output};

/// A data file beside the kinds that [`l1ra_models::Inspection`] knows.
#[derive(Serialize)]
struct Data {
    kind: &'static str,
    #[serde(flatten)]
    data: DataInspection,
}

pub(crate) fn inspect(args: &InspectArgs, output: &Output) -> Result<()> {
    let path = &args.path;
    if !path.exists() {
        return Err(mistake(format!(
            "{}: no such file or folder; give the folder of a model or adapter, a .gguf file or a \
             data file",
            path.display()
        )));
    }
    let is_gguf = path
        .extension()
        .is_some_and(|extension| extension == "gguf");
    if path.is_file() && !is_gguf {
        let data = inspect_data(path)?;
        let text = data.to_string();
        return output.result(text, &Data { kind: "data", data });
    }
    let inspection = l1ra_models::inspect(path)?;
    output.result(inspection.to_string(), &inspection)
}
