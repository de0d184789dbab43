//! [`HubOptions`]: cache, token and hub, from the environment or by hand.

use std::{
    env,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use crate::error::{HubError, HubErrorKind};

/// Where models come from and where they are kept.
#[derive(Clone, PartialEq, Eq)]
pub struct HubOptions {
    /// The cache, in Hugging Face's lay-out.
    pub cache: PathBuf,
    /// The token that is sent.
    pub token: Option<String>,
    /// The hub, `http://…` or `https://…`; `None`: the public one.
    pub endpoint: Option<String>,
    /// Whether only the cache is looked at.
    pub offline: bool,
}

impl HubOptions {
    /// As the environment has it: see [the crate](crate) for the variables.
    ///
    /// # Errors
    /// A variable that cannot be used, or none that tells where the cache is.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_vars(&|key| env::var_os(key), env::home_dir())
    }

    fn from_vars(
        var: &dyn Fn(&str) -> Option<OsString>,
        home: Option<PathBuf>,
    ) -> Result<Self, HubError> {
        let var = |key: &str| var(key).filter(|value| !value.is_empty());
        let path = |key: &str| var(key).map(PathBuf::from);
        let own_cache = || Some(home.clone()?.join(".cache"));
        let hf_home = path("HF_HOME").or_else(|| {
            let base = path("XDG_CACHE_HOME").or_else(own_cache)?;
            Some(base.join("huggingface"))
        });
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| hf_home.as_ref().map(|home| home.join("hub")));
        let cache = cache.ok_or_else(|| {
            setting(
                "HF_HUB_CACHE",
                "is not set, and there is no home folder; set it to the folder for models",
            )
        })?;
        let endpoint = match var("HF_ENDPOINT") {
            Some(url) => Some(endpoint(&url.to_string_lossy())?),
            None => None,
        };
        let flag = |key: &str| var(key).is_some_and(|value| is_true(&value.to_string_lossy()));
        let token = if flag("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            None
        } else {
            let given = var("HF_TOKEN").map(|token| token.to_string_lossy().trim().to_string());
            let file = path("HF_TOKEN_PATH").or_else(|| Some(hf_home?.join("token")));
            given.or_else(|| read_token(&file?))
        };
        if token
            .as_ref()
            .is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err(setting(
                "HF_TOKEN",
                "(or the token's file) holds a blank or a character that no token has",
            ));
        }
        Ok(Self {
            cache,
            token,
            endpoint,
            offline: flag("HF_HUB_OFFLINE"),
        })
    }
}

impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "(set)"))
            .field("endpoint", &self.endpoint)
            .field("offline", &self.offline)
            .finish()
    }
}

fn endpoint(url: &str) -> Result<String, HubError> {
    let url = url.trim_end_matches('/');
    let host = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    if host.is_none_or(str::is_empty) {
        let detail = format!("is `{url}`; expected http://… or https://…");
        return Err(setting("HF_ENDPOINT", &detail));
    }
    Ok(url.into())
}

fn read_token(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let token = text.trim();
    (!token.is_empty()).then(|| token.to_string())
}

/// As huggingface_hub reads a switch.
fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
}

fn setting(variable: &str, detail: &str) -> HubError {
    HubError::new(variable, HubErrorKind::Setting, detail)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn options(vars: &[(&str, &str)]) -> Result<HubOptions, String> {
        let var = |key: &str| {
            let entry = vars.iter().find(|(name, _)| *name == key);
            entry.map(|(_, value)| OsString::from(value))
        };
        HubOptions::from_vars(&var, Some("/home/me".into())).map_err(|error| error.to_string())
    }

    #[test]
    fn the_cache_is_where_other_programs_have_it() {
        let cache = |vars: &[(&str, &str)]| options(vars).unwrap().cache;
        assert_eq!(cache(&[]), Path::new("/home/me/.cache/huggingface/hub"));
        assert_eq!(
            cache(&[("XDG_CACHE_HOME", "/x")]),
            Path::new("/x/huggingface/hub")
        );
        assert_eq!(
            cache(&[("HF_HOME", "/h"), ("XDG_CACHE_HOME", "/x")]),
            Path::new("/h/hub")
        );
        assert_eq!(
            cache(&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/h")]),
            Path::new("/c")
        );
        let nowhere = HubOptions::from_vars(&|_| None, None).unwrap_err();
        assert!(nowhere.to_string().starts_with("HF_HUB_CACHE: is not set"));
    }

    #[test]
    fn the_token_is_given_or_read_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "hf_file\n").unwrap();
        let home = dir.path().to_str().unwrap();
        let token = |vars: &[(&str, &str)]| options(vars).unwrap().token;
        assert_eq!(token(&[]), None);
        assert_eq!(token(&[("HF_HOME", home)]).unwrap(), "hf_file");
        assert_eq!(
            token(&[("HF_HOME", home), ("HF_TOKEN", "hf_given")]).unwrap(),
            "hf_given"
        );
        let off = ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1");
        assert_eq!(token(&[("HF_HOME", home), off]), None);
        let shown = format!("{:?}", options(&[("HF_TOKEN", "hf_given")]).unwrap());
        assert!(!shown.contains("hf_given"), "{shown}");
        let error = options(&[("HF_TOKEN", "a\nb")]).unwrap_err();
        insta::assert_snapshot!(error, @"HF_TOKEN: (or the token's file) holds a blank or a character that no token has");
    }

    #[test]
    fn hub_and_switch_are_checked() {
        let set = options(&[
            ("HF_ENDPOINT", "http://localhost:1/"),
            ("HF_HUB_OFFLINE", "yes"),
        ]);
        let set = set.unwrap();
        assert_eq!(
            (set.endpoint.as_deref(), set.offline),
            (Some("http://localhost:1"), true)
        );
        assert!(!options(&[("HF_HUB_OFFLINE", "0")]).unwrap().offline);
        let error = options(&[("HF_ENDPOINT", "localhost")]).unwrap_err();
        insta::assert_snapshot!(error, @"HF_ENDPOINT: is `localhost`; expected http://… or https://…");
    }
}
