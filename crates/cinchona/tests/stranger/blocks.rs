//! The fenced blocks of a page in Markdown.

use std::{fs, path::Path};

/// A fenced block.
pub(crate) struct Block {
    /// What follows the fence: `rust`, `toml`, `rust,no_run`.
    pub(crate) info: String,
    pub(crate) text: String,
    /// The paragraph before it.
    pub(crate) before: String,
    /// Where it begins, as `file:line`.
    pub(crate) place: String,
}

// === impl Block ===

impl Block {
    pub(crate) fn language(&self) -> &str {
        self.info.split(',').next().unwrap_or_default()
    }
}

/// The blocks of a file, in order.
pub(crate) fn blocks_of(path: &Path) -> Vec<Block> {
    let page = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let mut blocks = Vec::new();
    let (mut before, mut is_new) = (String::new(), false);
    let mut lines = page.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        if let Some(info) = line.strip_prefix("```") {
            let inside = lines.by_ref().take_while(|(_, line)| *line != "```");
            let text: Vec<&str> = inside.map(|(_, line)| line).collect();
            blocks.push(Block {
                info: info.to_owned(),
                text: text.join("\n") + "\n",
                before: before.clone(),
                place: format!("{}:{}", path.display(), at + 1),
            });
        } else if line.is_empty() {
            is_new = true;
        } else {
            if std::mem::take(&mut is_new) {
                before.clear();
            }
            before += line;
            before += "\n";
        }
    }
    blocks
}

#[test]
fn a_block_has_its_language_its_text_and_the_paragraph_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.md");
    fs::write(&page, "No.\n\n`a.rs`:\n\n```rust,no_run\nfn a() {}\n\nfn b() {}\n```\n\nEnd.\n")
        .unwrap();
    let blocks = blocks_of(&page);
    let [block] = &blocks[..] else { panic!("{}", blocks.len()) };
    assert_eq!((block.language(), &*block.before), ("rust", "`a.rs`:\n"));
    assert_eq!(block.text, "fn a() {}\n\nfn b() {}\n");
    assert!(block.place.ends_with("page.md:5"));
}
