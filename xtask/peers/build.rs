//! Takes the code of other crates out of the guide's page on migrating, so that it is built.

use std::{env, error::Error, fs, path::Path};

const PAGE: &str = "../../crates/cinchona/src/guide/migrating.md";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PAGE}");
    let page = fs::read_to_string(PAGE)?;
    let blocks = page.split("```rust,ignore\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    let modules: Vec<String> = blocks
        .enumerate()
        .map(|(n, block)| format!("mod before_{n} {{\n{block}\n}}\n"))
        .collect();
    assert!(!modules.is_empty(), "{PAGE} has no code of other crates");
    let file = Path::new(&env::var("OUT_DIR")?).join("migrating.rs");
    Ok(fs::write(file, modules.concat())?)
}
