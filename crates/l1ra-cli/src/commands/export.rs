//! `l1ra export`: an adapter's PEFT files in another lay-out.

use anyhow::Result;
use l1ra_core::{
    L1raConfig,
    peft::{Layout, Reader, describe_adapter, save_adapter_data},
};
use serde::Serialize;

use crate::{args::ExportArgs, failure::mistake, output::Output};

#[derive(Serialize)]
struct Exported {
    output: String,
    layout: Layout,
    adapters: usize,
    readers: Vec<Verdict>,
}

#[derive(Serialize)]
struct Verdict {
    reader: Reader,
    right: bool,
    note: String,
}

pub(crate) fn export(args: &ExportArgs, output: &Output) -> Result<()> {
    let files = describe_adapter(&args.adapter)?;
    if args.output.exists() {
        return Err(mistake(format!(
            "{}: is there already; --output takes a folder that is not",
            args.output.display()
        )));
    }
    let base = args
        .base_model
        .clone()
        .or(files.base_model)
        .unwrap_or_default();
    let set = files.set;
    // Files of PEFT alone have no configuration of ours; these are the keys that both share.
    let config = set.config.clone().unwrap_or_else(|| L1raConfig {
        rank: files.rank,
        alpha: files.alpha,
        dropout: set.dropout,
        ..Default::default()
    });
    save_adapter_data(&set.adapters, &config, args.layout, &base, &args.output)?;
    let layout = args.layout;
    let verdict = |reader: Reader| Verdict {
        reader,
        right: layout.is_right_in(reader),
        note: layout.reader_note(reader),
    };
    let exported = Exported {
        output: args.output.display().to_string(),
        layout,
        adapters: set.adapters.len(),
        readers: Reader::ALL.map(verdict).into(),
    };
    let plural = if exported.adapters == 1 { "" } else { "s" };
    let mut text = format!(
        "{} adapter{plural}, lay-out {layout}, in {}",
        exported.adapters, exported.output
    );
    for Verdict { reader, note, .. } in &exported.readers {
        text += &format!("\n  {:<10} {note}", reader.to_string());
    }
    output.result(text, &exported)
}
