//! Licence expressions (SPDX), as far as package manifests use them.
//!
//! `MIT OR (Apache-2.0 WITH LLVM-exception AND ISC)`; `AND` binds tighter than `OR`. The old form
//! `MIT/Apache-2.0` means `OR`.

use anyhow::{Result, bail, ensure};

/// Whether an expression can be satisfied with licences of the allow list alone.
///
/// A licence with an exception is one name, `Apache-2.0 WITH LLVM-exception`, and has to be
/// allowed as such.
pub(crate) fn is_allowed(expression: &str, allowed: &[String]) -> Result<bool> {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let mut parser = Parser {
        tokens: spaced.split_whitespace().collect(),
        next: 0,
        allowed,
    };
    let verdict = parser.any()?;
    match parser.tokens.get(parser.next) {
        None => Ok(verdict),
        Some(token) => bail!("`{token}` is out of place in the licence expression `{expression}`"),
    }
}

struct Parser<'a> {
    tokens: Vec<&'a str>,
    next: usize,
    allowed: &'a [String],
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<bool> {
        let mut verdict = self.all()?;
        while self.takes("OR") {
            verdict |= self.all()?;
        }
        Ok(verdict)
    }

    fn all(&mut self) -> Result<bool> {
        let mut verdict = self.one()?;
        while self.takes("AND") {
            verdict &= self.one()?;
        }
        Ok(verdict)
    }

    fn one(&mut self) -> Result<bool> {
        if self.takes("(") {
            let verdict = self.any()?;
            ensure!(
                self.takes(")"),
                "a bracket stays open in a licence expression"
            );
            return Ok(verdict);
        }
        let licence = self.name()?;
        if self.takes("WITH") {
            let licence = format!("{licence} WITH {}", self.name()?);
            return Ok(self.allowed.contains(&licence));
        }
        Ok(self.allowed.iter().any(|name| name == licence))
    }

    fn name(&mut self) -> Result<&'a str> {
        match self.tokens.get(self.next) {
            Some(name) if !["OR", "AND", "WITH", "(", ")"].contains(name) => {
                self.next += 1;
                Ok(name)
            }
            _ => bail!("a licence name is missing in a licence expression"),
        }
    }

    fn takes(&mut self, token: &str) -> bool {
        let found = self.tokens.get(self.next) == Some(&token);
        self.next += usize::from(found);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(expression: &str) -> bool {
        let list = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
        is_allowed(expression, &list).unwrap()
    }

    #[test]
    fn one_licence_has_to_be_on_the_list() {
        assert!(allowed("MIT"));
        assert!(!allowed("GPL-3.0-only"));
        assert!(!allowed("mit"));
    }

    #[test]
    fn or_takes_any_and_takes_all() {
        assert!(allowed("GPL-3.0-only OR MIT"));
        assert!(allowed("MIT AND ISC"));
        assert!(!allowed("MIT AND GPL-3.0-only"));
    }

    #[test]
    fn and_binds_tighter_than_or_unless_bracketed() {
        assert!(allowed("MIT OR ISC AND GPL-3.0-only"));
        assert!(!allowed("(MIT OR ISC) AND GPL-3.0-only"));
        assert!(allowed("((MIT OR GPL-3.0-only)) AND (ISC)"));
    }

    #[test]
    fn an_exception_belongs_to_its_licence() {
        assert!(allowed("Apache-2.0 WITH LLVM-exception"));
        assert!(!allowed("Apache-2.0"));
        assert!(!allowed("MIT WITH LLVM-exception"));
    }

    #[test]
    fn the_old_slash_means_or() {
        assert!(allowed("MIT/Apache-2.0"));
        assert!(allowed("Apache-2.0 / MIT"));
        assert!(!allowed("Apache-2.0/Zlib"));
    }

    #[test]
    fn nonsense_is_an_error() {
        for expression in [
            "", "MIT OR", "(MIT", "MIT)", "MIT ISC", "AND MIT", "MIT WITH",
        ] {
            assert!(is_allowed(expression, &[]).is_err(), "{expression}");
        }
    }
}
