//! `l1ra merge`: base and adapter as one model.

use anyhow::Result;
use l1ra_core::peft::load_adapter;
use l1ra_models::{
    load::ModelFiles,
    merge::{MergeOptions, merge_to_dir},
};

use crate::{args::MergeArgs, load::model_path, output::Output};

pub(crate) fn merge(args: &MergeArgs, output: &Output) -> Result<()> {
    let adapter = load_adapter(&args.adapter)?;
    let files = ModelFiles::open(&model_path(&args.model, *output)?)?;
    let options = MergeOptions {
        dtype: args.dtype.stored_type(),
        ..Default::default()
    };
    let bar = output.bar("merge");
    let report = merge_to_dir(
        &files,
        &adapter,
        &args.output,
        options,
        &mut |done, total| {
            bar.count(done, total);
        },
    )?;
    output.result(report.to_string(), &report)
}
