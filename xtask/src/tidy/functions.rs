//! Functions stay short enough to be read at one glance.

use super::Finding;
use super::lexer::is_word;
use super::source::Source;
use std::ops::RangeInclusive;

const LINES_MAX: usize = 70;

pub(super) fn check(source: &Source) -> Vec<Finding> {
    functions(&source.code)
        .filter(|function| function.lines > LINES_MAX)
        .map(|function| {
            let message = format!(
                "`{}` has {} lines, the limit is {LINES_MAX}; give a part of it a name of its own",
                function.name, function.lines
            );
            source.finding(function.index, "function length", message)
        })
        .collect()
}

struct Function<'a> {
    name: &'a str,
    /// Line index of `fn`.
    index: usize,
    /// Lines between the braces.
    lines: usize,
}

fn functions(code: &[String]) -> impl Iterator<Item = Function<'_>> {
    code.iter().enumerate().filter_map(move |(index, line)| {
        let (column, name) = declared(line)?;
        let body = block(code, index, column)?;
        Some(Function {
            name,
            index,
            lines: body.end().saturating_sub(body.start() + 1),
        })
    })
}

/// Where the line declares a function, and its name.
fn declared(line: &str) -> Option<(usize, &str)> {
    let (column, _) = line
        .match_indices("fn ")
        .find(|(at, _)| !line[..*at].ends_with(is_word))?;
    let name = line[column + 3..].split(|each| !is_word(each)).next()?;
    (!name.is_empty()).then_some((column, name))
}

/// The line indices of the first block that opens at or after this place: its braces' lines.
///
/// `None` if a semicolon ends the item before any block opens.
pub(super) fn block(code: &[String], start: usize, column: usize) -> Option<RangeInclusive<usize>> {
    let mut open = start;
    let mut depth = 0_usize;
    // Semicolons inside brackets belong to array types, not to the end of the item.
    let mut brackets = 0_usize;
    for (index, line) in code.iter().enumerate().skip(start) {
        let from = if index == start { column } else { 0 };
        for character in line[from..].chars() {
            match character {
                '{' => {
                    if depth == 0 {
                        open = index;
                    }
                    depth += 1;
                }
                '}' => {
                    depth = depth.checked_sub(1)?;
                    if depth == 0 {
                        return Some(open..=index);
                    }
                }
                '[' | '(' => brackets += 1,
                ']' | ')' => brackets = brackets.saturating_sub(1),
                ';' if depth == 0 && brackets == 0 => return None,
                _ => {}
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(text: &str) -> Vec<(String, usize)> {
        let source = Source::new("a.rs", text);
        functions(&source.code)
            .map(|function| (function.name.to_owned(), function.lines))
            .collect()
    }

    #[test]
    fn the_body_is_counted() {
        let text =
            "fn a(\n    x: [u8; 3],\n) -> u8 {\n    if x {\n        1\n    }\n}\n\nfn b() {}\n";
        assert_eq!(lengths(text), [("a".to_owned(), 3), ("b".to_owned(), 0)]);
    }

    #[test]
    fn declarations_and_braces_in_strings_do_not_count() {
        let text = "trait T { fn c(&self); }\nfn d() {\n    f(\"}\");\n}\n";
        assert_eq!(lengths(text), [("d".to_owned(), 1)]);
    }

    #[test]
    fn a_long_function_is_found() {
        let text = format!("//! Doc.\nfn long() {{\n{}}}\n", "    f();\n".repeat(71));
        let findings = check(&Source::new("a.rs", &text));
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].line, 2);
    }
}
