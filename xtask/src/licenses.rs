//! `cargo xtask licenses`: the licence of every dependency against the allow list of `deny.toml`.
//!
//! Where `cargo-deny` is installed it does the check. Otherwise this module does, from
//! `cargo metadata`, without a network once the dependencies are there.

use std::collections::HashMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{process, spdx};

/// Checks and prints how many packages there were; a package that fails is named in the error.
pub(crate) fn run() -> Result<()> {
    if process::is_installed(&mut Command::new("cargo-deny")) {
        return process::run(process::cargo().args(["deny", "check", "licenses"]));
    }
    let path = process::root().join("deny.toml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let policy = Policy::parse(&text).with_context(|| format!("in {}", path.display()))?;
    let packages = packages(&metadata()?)?;
    let mut refused: Vec<String> = Vec::new();
    for package in &packages {
        refused.extend(policy.objection(package)?);
    }
    if refused.is_empty() {
        println!(
            "licenses: {} packages, all allowed by deny.toml",
            packages.len()
        );
        return Ok(());
    }
    refused.sort();
    bail!(
        "{} of {} packages have a licence that deny.toml does not allow:\n  {}\nreplace them, or \
         add the licence to `licenses.allow` there if its terms suit us",
        refused.len(),
        packages.len(),
        refused.join("\n  ")
    )
}

fn metadata() -> Result<Value> {
    let arguments = [
        "metadata",
        "--locked",
        "--all-features",
        "--format-version",
        "1",
    ];
    let offline = process::capture(process::cargo().args(arguments).arg("--offline"));
    let json = offline.or_else(|_| process::capture(process::cargo().args(arguments)))?;
    Ok(serde_json::from_slice(&json)?)
}

#[derive(Debug)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
}

/// Every package that comes from outside of the workspace.
fn packages(metadata: &Value) -> Result<Vec<Package>> {
    let list = metadata["packages"]
        .as_array()
        .context("cargo metadata names no packages")?;
    let text = |package: &Value, key: &str| package[key].as_str().map(str::to_owned);
    let foreign = list.iter().filter(|package| !package["source"].is_null());
    let packages = foreign.map(|package| Package {
        name: text(package, "name").unwrap_or_default(),
        version: text(package, "version").unwrap_or_default(),
        license: text(package, "license"),
    });
    Ok(packages.collect())
}

/// The parts of `deny.toml` that this check knows: `licenses.allow`, and `name` + `allow` of
/// `licenses.exceptions`, and `name` + `expression` of `licenses.clarify`.
struct Policy {
    allow: Vec<String>,
    exceptions: HashMap<String, Vec<String>>,
    clarified: HashMap<String, String>,
}

impl Policy {
    fn parse(text: &str) -> Result<Self> {
        let table: toml::Table = text.parse()?;
        let licenses = table
            .get("licenses")
            .context("there is no table `licenses`")?;
        let allow =
            strings(licenses.get("allow")).context("`licenses.allow` is no list of names")?;
        let entries = |key| {
            licenses
                .get(key)
                .and_then(toml::Value::as_array)
                .into_iter()
                .flatten()
        };
        let name = |entry: &toml::Value| {
            let name = ["crate", "name"]
                .iter()
                .find_map(|key| entry.get(*key)?.as_str());
            name.map(str::to_owned)
                .context("an entry of deny.toml has no `crate`")
        };
        let mut policy = Self {
            allow,
            exceptions: HashMap::new(),
            clarified: HashMap::new(),
        };
        for entry in entries("exceptions") {
            let more = strings(entry.get("allow")).context("an exception has no `allow`")?;
            policy
                .exceptions
                .entry(name(entry)?)
                .or_default()
                .extend(more);
        }
        for entry in entries("clarify") {
            let expression = entry.get("expression").and_then(toml::Value::as_str);
            let expression = expression.context("a clarification has no `expression`")?;
            policy.clarified.insert(name(entry)?, expression.to_owned());
        }
        Ok(policy)
    }

    /// What is wrong with a package's licence, if anything.
    fn objection(&self, package: &Package) -> Result<Option<String>> {
        let Package {
            name,
            version,
            license,
        } = package;
        let Some(expression) = self.clarified.get(name).or(license.as_ref()) else {
            return Ok(Some(format!(
                "{name} {version}: its manifest states no licence"
            )));
        };
        let exceptions = self.exceptions.get(name).into_iter().flatten();
        let allow: Vec<String> = self.allow.iter().chain(exceptions).cloned().collect();
        let allowed = spdx::is_allowed(expression, &allow)
            .with_context(|| format!("reading the licence of {name} {version}"))?;
        Ok((!allowed).then(|| format!("{name} {version}: {expression}")))
    }
}

fn strings(value: Option<&toml::Value>) -> Option<Vec<String>> {
    value?
        .as_array()?
        .iter()
        .map(|name| name.as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
        [licenses]
        allow = ["MIT"]
        exceptions = [{ crate = "special", allow = ["MPL-2.0"] }]
        [[licenses.clarify]]
        crate = "silent"
        expression = "MIT"
        license-files = []
    "#;

    fn objection(name: &str, license: Option<&str>) -> Option<String> {
        let license = license.map(str::to_owned);
        let package = Package {
            name: name.into(),
            version: "1.0.0".into(),
            license,
        };
        Policy::parse(POLICY).unwrap().objection(&package).unwrap()
    }

    #[test]
    fn an_exception_counts_for_its_package_alone() {
        assert_eq!(objection("special", Some("MPL-2.0")), None);
        assert_eq!(
            objection("other", Some("MPL-2.0")).unwrap(),
            "other 1.0.0: MPL-2.0"
        );
    }

    #[test]
    fn a_package_without_a_licence_needs_a_clarification() {
        assert_eq!(objection("silent", None), None);
        assert_eq!(
            objection("other", None).unwrap(),
            "other 1.0.0: its manifest states no licence"
        );
    }

    #[test]
    fn packages_of_the_workspace_are_left_out() {
        let metadata = serde_json::json!({"packages": [
            {"name": "ours", "version": "0.1.0", "license": null, "source": null},
            {"name": "theirs", "version": "2.0.0", "license": "MIT", "source": "registry"},
        ]});
        let packages = packages(&metadata).unwrap();
        assert_eq!(packages.len(), 1);
        assert_eq!(packages[0].name, "theirs");
    }

    #[test]
    fn the_repository_s_policy_can_be_read() {
        let text = fs::read_to_string(process::root().join("deny.toml")).unwrap();
        let policy = Policy::parse(&text).unwrap();
        assert!(policy.allow.contains(&"MIT".to_owned()));
    }
}
