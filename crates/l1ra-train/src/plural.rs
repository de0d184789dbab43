//! Numbers with their nouns.

/// What a noun ends with after `count`: nothing for one, else `s`.
pub(crate) fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// `1 sample`, `2 samples`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", plural(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_singular() {
        let texts = [0, 1, 2].map(|count| counted(count, "sample"));
        assert_eq!(texts, ["0 samples", "1 sample", "2 samples"]);
    }
}
