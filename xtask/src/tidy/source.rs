//! One file as the rules see it.

use super::lexer;
use super::{Finding, functions};
use std::ops::Range;
use std::path::Path;

/// A file of the repository.
pub(super) struct Source {
    /// From the root, with `/`.
    pub(super) path: String,
    pub(super) lines: Vec<String>,
    /// The lines without comments and literals; empty for what is not Rust.
    pub(super) code: Vec<String>,
    /// Whether the file holds nothing but tests.
    pub(super) is_test: bool,
    /// Line indices of `#[cfg(test)]` modules inside the file.
    test_ranges: Vec<Range<usize>>,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") {
            lexer::code_lines(text)
        } else {
            Vec::new()
        };
        let test_ranges = test_ranges(&code);
        Self {
            path: path.to_owned(),
            lines: text.lines().map(str::to_owned).collect(),
            is_test: path.starts_with("tests/"),
            test_ranges,
            code,
        }
    }

    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Index, from 0, and code of each line that is not inside a test.
    pub(super) fn product_code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code
            .iter()
            .enumerate()
            .filter(|(index, _)| {
                !self.is_test && !self.test_ranges.iter().any(|range| range.contains(index))
            })
            .map(|(index, line)| (index, line.as_str()))
    }

    /// Paths that `#[cfg(test)] mod name;` may stand for.
    pub(super) fn test_modules(&self) -> Vec<String> {
        let path = Path::new(&self.path);
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        let parent = path.parent().unwrap_or(path);
        let directory = match stem {
            "mod" | "lib" | "main" => parent.to_owned(),
            stem => parent.join(stem),
        };
        let mut modules = Vec::new();
        for (index, line) in self.code.iter().enumerate() {
            let declared = line
                .trim()
                .strip_prefix("mod ")
                .and_then(|rest| rest.strip_suffix(';'));
            let Some(name) = declared else { continue };
            let above = &self.code[index.saturating_sub(2)..index];
            if above.iter().any(|line| line.contains("#[cfg(test)]")) {
                modules.push(directory.join(format!("{name}.rs")).display().to_string());
                modules.push(directory.join(name).join("mod.rs").display().to_string());
                // With `#[path]` the file is a sibling, and its name is a literal.
                for line in &self.lines[index.saturating_sub(2)..index] {
                    if let Some(file) = line.split('"').nth(1) {
                        modules.push(parent.join(file).display().to_string());
                    }
                }
            }
        }
        modules
    }

    /// A finding at the line with this index.
    pub(super) fn finding(
        &self,
        index: usize,
        rule: &'static str,
        message: impl Into<String>,
    ) -> Finding {
        Finding {
            path: self.path.clone(),
            line: index + 1,
            rule,
            message: message.into(),
        }
    }

    /// A finding about the file as a whole.
    pub(super) fn file_finding(&self, rule: &'static str, message: impl Into<String>) -> Finding {
        Finding {
            path: self.path.clone(),
            line: 0,
            rule,
            message: message.into(),
        }
    }
}

fn test_ranges(code: &[String]) -> Vec<Range<usize>> {
    code.iter()
        .enumerate()
        .filter(|(_, line)| line.contains("#[cfg(test)]"))
        .filter_map(|(index, _)| {
            let block = functions::block(code, index, 0)?;
            Some(index..block.end() + 1)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_in_tests_is_told_from_the_product() {
        let text =
            "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { x.unwrap(); }\n}\nfn c() {}\n";
        let source = Source::new("pgs-userspace/src/a.rs", text);
        let product: Vec<&str> = source.product_code().map(|(_, line)| line).collect();
        assert_eq!(product, ["fn a() {}", "fn c() {}"]);
    }

    #[test]
    fn files_of_tests_are_found_by_their_declaration() {
        let source = Source::new(
            "p/src/backend.rs",
            "#[cfg(test)]\nmod properties;\nmod other;\n",
        );
        assert!(
            source
                .test_modules()
                .contains(&"p/src/backend/properties.rs".to_owned())
        );
        let text = "#[cfg(test)]\n#[path = \"backend_tests.rs\"]\nmod tests;\n";
        let source = Source::new("p/src/backend.rs", text);
        assert!(
            source
                .test_modules()
                .contains(&"p/src/backend_tests.rs".to_owned())
        );
        assert!(
            !source
                .test_modules()
                .iter()
                .any(|path| path.contains("other"))
        );
    }
}
