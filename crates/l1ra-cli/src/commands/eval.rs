//! `l1ra eval`: loss and perplexity of a model on data.

use anyhow::Result;
use l1ra_train::{
    FineTune,
    data::{DataOptions, DataSource, loader, prepare_eval_data},
    eval::evaluate,
};

use crate::{
    args::EvalArgs,
    failure::{as_flag, mistake},
    load::Opened,
    output::Output,
    progress::Preparing,
};

pub(crate) fn eval(args: &EvalArgs, output: &Output) -> Result<()> {
    if args.batch_size == 0 {
        return Err(mistake("--batch-size 0: at least 1"));
    }
    let options = DataOptions {
        eval: args
            .data
            .iter()
            .map(|path| DataSource::new(path.as_str()))
            .collect(),
        eval_rows: args.rows,
        form: args.form,
        train_on: args.train_on,
        max_length: args.max_length,
        ..Default::default()
    };
    let opened = Opened::new(&args.model, *output)?;
    let files = &opened.files;
    let progress = Preparing::new(*output);
    let set = prepare_eval_data(
        &options,
        &files.tokenizer,
        files.template.as_ref(),
        &progress,
    )
    .map_err(as_flag)?;
    drop(progress);
    let context = files.config.max_position_embeddings;
    set.stats
        .check_context(context, args.max_length)
        .map_err(as_flag)?;
    for note in set.sources.iter().map(ToString::to_string).chain(set.notes) {
        output.say(format!("data        {note}"));
    }
    output.say(format!("eval        {}", set.stats));

    let device = opened.device.clone();
    let loaded = opened.load()?;
    let pad = loaded.tokenizer.pad.unwrap_or(0);
    let data = loader(set.samples, args.batch_size, pad, None, &device);
    let bar = output.bar("evaluate");
    let model = FineTune::new(loaded.model, None);
    let result = evaluate(&model, data.as_ref(), |done, total| bar.count(done, total))?;
    drop(bar);
    let text = format!(
        "loss        {:.4}\nperplexity  {:.2}\ntokens      {}",
        result.loss, result.perplexity, result.tokens
    );
    output.result(text, &result)
}
