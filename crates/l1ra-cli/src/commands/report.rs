//! `l1ra report`: a run to look at.

use anyhow::Result;
use l1ra_train::report::{RunRecord, rank_pattern, summary, write_report};

use crate::{args::ReportArgs, failure::as_flag, output::Output};

pub(crate) fn report(args: &ReportArgs, output: &Output) -> Result<()> {
    if let Some(trainer) = args.rank_pattern {
        let pattern = rank_pattern(&args.dir)?;
        let text = trainer.text(&pattern).map_err(as_flag)?;
        return output.result(text, &pattern);
    }
    let record = RunRecord::read(&args.dir)?;
    let files = write_report(&record, &args.dir)?;
    let names: Vec<String> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    let text = format!(
        "{}\n\nreport      {}",
        summary(&record).trim_end(),
        names[0]
    );
    let value = serde_json::json!({
        "report": names.first(),
        "files": names,
        "complete": record.is_complete(),
        "steps": record.last_step(),
    });
    output.result(text, &value)
}
