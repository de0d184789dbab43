//! `l1ra report`: a run to look at.

use anyhow::Result;
use l1ra_train::report::{RunRecord, summary, write_report};

use crate::{args::ReportArgs, output::Output};

pub(crate) fn report(args: &ReportArgs, output: &Output) -> Result<()> {
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
