//! Tags that transformers adds to Jinja and minijinja has no room for.
//!
//! `{% generation %}…{% endgeneration %}` marks what the assistant says, for masks; its text is
//! rendered as if the tags were not there. They become `{% with %}…{% endwith %}`, which renders the
//! same, keeps names to itself as a Jinja2 block does, and takes the blanks around it as the tags
//! would have: `{%- generation -%}` becomes `{%- with -%}`.

use std::borrow::Cow;

const PAIRS: [(&str, &str); 2] = [("generation", "with"), ("endgeneration", "endwith")];

/// The source with those tags replaced, where it has any.
pub(super) fn replace(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return Cow::Borrowed(source);
    }
    let mut replaced = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = next_opening(rest) {
        replaced.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = match &rest[..2] {
            "{#" => rest.find("#}").map(|at| at + 2),
            "{{" => end_of(rest, "}}"),
            _ => end_of(rest, "%}"),
        };
        // An opening that nothing closes is for the parser to complain of.
        let Some(end) = end else { break };
        let (piece, after) = rest.split_at(end);
        rest = after;
        replaced.push_str(&tag(piece));
        if name(piece) == Some("raw") {
            let end = end_of_raw(rest).unwrap_or(rest.len());
            replaced.push_str(&rest[..end]);
            rest = &rest[end..];
        }
    }
    replaced.push_str(rest);
    Cow::Owned(replaced)
}

fn next_opening(text: &str) -> Option<usize> {
    let braces = text.match_indices('{').map(|(at, _)| at);
    let opens = |at: &usize| matches!(text.as_bytes().get(at + 1), Some(b'%' | b'{' | b'#'));
    braces.into_iter().find(opens)
}

/// Where the expression or tag at the start of `text` ends; texts in quotes do not end it.
fn end_of(text: &str, close: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(2) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if letter == '\\' => escaped = true,
            Some(open) if letter == open => quote = None,
            Some(_) => {}
            None if letter == '\'' || letter == '"' => quote = Some(letter),
            None if text[at..].starts_with(close) => return Some(at + close.len()),
            None => {}
        }
    }
    None
}

/// Where the tag that ends a raw block begins.
fn end_of_raw(text: &str) -> Option<usize> {
    let tags = text.match_indices("{%").map(|(at, _)| at);
    tags.into_iter()
        .find(|at| name(&text[*at..]) == Some("endraw"))
}

/// The first word of a tag.
fn name(piece: &str) -> Option<&str> {
    let inner = piece.strip_prefix("{%")?;
    let inner = inner.trim_start_matches(['-', '+']).trim_start();
    let end = inner.find(|c: char| !(c.is_alphanumeric() || c == '_'));
    Some(&inner[..end.unwrap_or(inner.len())])
}

fn tag(piece: &str) -> Cow<'_, str> {
    let pair = PAIRS.iter().find(|(from, _)| name(piece) == Some(*from));
    match pair {
        Some((from, to)) => piece.replacen(from, to, 1).into(),
        None => piece.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_replaced_and_nothing_else() {
        let source = "generation {%- generation -%} a {% endgeneration %}{%+ generation %}b\
                      {%endgeneration-%}{{ '{% generation %}' }}{# {% generation %} #}\
                      {% raw %}{% generation %}{% endraw %}{% set a = '%} {% generation %}' %}\
                      {% if generation %}{{ generation }}{% endif %}";
        assert_eq!(
            replace(source),
            "generation {%- with -%} a {% endwith %}{%+ with %}b\
             {%endwith-%}{{ '{% generation %}' }}{# {% generation %} #}\
             {% raw %}{% generation %}{% endraw %}{% set a = '%} {% generation %}' %}\
             {% if generation %}{{ generation }}{% endif %}"
        );
        for same in [
            "",
            "{% generation",
            "{{ 'generation",
            "{# generation",
            "{% raw %}generation",
        ] {
            assert_eq!(replace(same), same);
        }
    }
}
