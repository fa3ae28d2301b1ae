//! Blanks out what is not code, so that rules do not stumble over words in comments and strings.

/// The same text with comments and the contents of literals replaced by spaces, line by line.
pub(super) fn code_lines(text: &str) -> Vec<String> {
    let mut blanked = String::with_capacity(text.len());
    let mut rest = text;
    let mut previous = ' ';
    while let Some(character) = rest.chars().next() {
        let skipped = match character {
            '/' if rest.starts_with("//") => line_comment(rest),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => quoted(rest),
            '\'' => character_literal(rest),
            'r' | 'b' | 'c' if !is_word(previous) => prefixed_literal(rest),
            _ => 0,
        };
        let taken = if skipped == 0 {
            character.len_utf8()
        } else {
            skipped
        };
        let (part, after) = rest.split_at(taken);
        if skipped == 0 {
            blanked.push(character);
        } else {
            blanked.extend(
                part.chars()
                    .map(|each| if each == '\n' { '\n' } else { ' ' }),
            );
        }
        previous = part.chars().next_back().unwrap_or(previous);
        rest = after;
    }
    blanked.lines().map(str::to_owned).collect()
}

/// Whether `character` can be part of a name.
pub(super) fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn line_comment(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

/// Block comments nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of a literal that starts with its quotation mark.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// 0 for a lifetime, which starts with the same mark.
fn character_literal(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    let Some((_, first)) = characters.next() else {
        return 0;
    };
    if first == '\\' {
        // What follows the backslash is part of the literal, a quotation mark too.
        return text[3.min(text.len())..]
            .find('\'')
            .map_or(0, |end| end + 4);
    }
    match characters.next() {
        Some((at, '\'')) => at + 1,
        _ => 0,
    }
}

/// `r"…"`, `r#"…"#`, `b"…"`, `br#"…"#`, `b'…'`, `c"…"`; 0 for a name.
fn prefixed_literal(text: &str) -> usize {
    let prefix = text
        .find(|each| !matches!(each, 'r' | 'b' | 'c'))
        .unwrap_or(text.len());
    let rest = &text[prefix..];
    let raw = text[..prefix].contains('r');
    if prefix > 2 {
        0
    } else if raw {
        raw_literal(rest).map_or(0, |length| prefix + length)
    } else if rest.starts_with('"') {
        prefix + quoted(rest)
    } else if rest.starts_with('\'') {
        match character_literal(rest) {
            0 => 0,
            length => prefix + length,
        }
    } else {
        0
    }
}

fn raw_literal(text: &str) -> Option<usize> {
    let hashes = text.find(|each| each != '#')?;
    if !text[hashes..].starts_with('"') {
        return None;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = hashes + 1;
    Some(
        text[body..]
            .find(&end)
            .map_or(text.len(), |at| body + at + end.len()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        code_lines(text)
            .join("\n")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn comments_and_literals_are_blanked() {
        assert_eq!(code("a // dbg!\nb /* x /* y */ z */ c"), "a b c");
        assert_eq!(code(r#"f("{ \" }"); g"#), "f( ); g");
        assert_eq!(
            code("f(r#\"{ \" }\"#); g(b\"}\", b'{', '}', '\\'', '\\u{7d}')"),
            { "f( ); g( , , , , )" }
        );
    }

    #[test]
    fn lifetimes_and_names_are_code() {
        assert_eq!(code("fn f<'a>(bar: &'a str) -> &'static str"), {
            "fn f<'a>(bar: &'a str) -> &'static str"
        });
        assert_eq!(code("r#type + br + c"), "r#type + br + c");
    }

    #[test]
    fn lines_keep_their_numbers() {
        let lines = code_lines("a\n\"x\ny\"\nb");
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[3], "b");
    }
}
