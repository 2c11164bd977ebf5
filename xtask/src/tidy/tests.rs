//! Each rule, with what breaks it and what does not; and the workspace itself.

use super::*;

#[test]
fn this_workspace_keeps_its_rules() {
    let files = read(&crate::command::root()).unwrap();
    assert!(files.contains_key("xtask/src/tidy/tests.rs"), "the workspace was not found");
    let violations: Vec<_> = check(&files).iter().map(ToString::to_string).collect();
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[track_caller]
fn all(files: &[(&str, &str)], expected: &[&str]) {
    let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    let found: Vec<_> = check(&files).iter().map(ToString::to_string).collect();
    assert_eq!(found, expected);
}

/// What is wrong with a source that has its documentation, and `text` from line 2.
#[track_caller]
fn source(text: &str, expected: &[&str]) {
    all(&[("crates/a/src/b.rs", &format!("//! Docs.\n{text}"))], expected);
}

#[test]
fn a_file_starts_with_its_documentation() {
    let expected = ["crates/a/src/b.rs:1: no `//!`, a file starts with its documentation"];
    for text in ["", "use x;\n//! Docs.", "// Docs.", "//!\n", "/// Docs."] {
        all(&[("crates/a/src/b.rs", text)], &expected);
    }
    let test = "crates/a/tests/b.rs:1: no `//!`, a file starts with its documentation";
    all(&[("crates/a/tests/b.rs", "use x;")], &[test]);
    all(&[("crates/a/src/b.rs", "//! Docs.\n"), ("crates/a/benches/b.rs", "\n//! Docs.")], &[]);
    all(&[("build.rs", "fn main() {}")], &[]);
}

#[test]
fn a_file_has_at_most_400_lines_without_its_tests() {
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "use x;\n".repeat(500));
    let lines = |count| "use x;\n".repeat(count);
    let expected = "crates/a/src/b.rs:1: 401 lines without tests, a file has at most 400";
    source(&lines(400), &[expected]);
    source(&format!("{}{tests}", lines(400)), &[expected]);
    source(&format!("{tests}{}", lines(400)), &[expected]);
    source(&format!("{}{tests}", lines(399)), &[]);
    let long = format!("//! Docs.\n{}", lines(500));
    for path in ["crates/a/src/b/tests.rs", "crates/a/tests/b.rs", "crates/a/benches/b.rs"] {
        all(&[(path, &long)], &[]);
    }
}

#[test]
fn a_function_has_at_most_60_lines() {
    let function = |count| format!("fn f(a: [u8; 2]) {{\n{}}}\n", "    g();\n".repeat(count));
    let expected = "crates/a/src/b.rs:2: `fn f` has 61 lines, a function has at most 60";
    source(&function(59), &[expected]);
    source(&format!("trait T {{ fn g(); }}\n{}", function(58)), &[]);
    source(&format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function(100)), &[]);
    source(&format!("#[test]\n{}", function(100)), &[]);
}

#[test]
fn braces_in_strings_and_comments_do_not_stretch_a_function() {
    let rest = "const A: u8 = 1;\n".repeat(70);
    source(&format!("fn f() {{ g(\"{{\", '{{', r#\"{{\"#); /* {{ */ }} // {{\n{rest}"), &[]);
}

#[test]
fn a_line_has_at_most_100_columns() {
    let comment = |columns: usize| format!("//{}\n", "é".repeat(columns - 2));
    source(&comment(100), &[]);
    source(&comment(101), &["crates/a/src/b.rs:2: 101 columns, a line has at most 100"]);
    source(&format!("/// [a]: https://{}\n", "a".repeat(100)), &[]);
    let code = format!("const A: &str = \"https://{}\";\n", "a".repeat(100));
    source(&code, &["crates/a/src/b.rs:2: 127 columns, a line has at most 100"]);
}

#[test]
fn unsafe_is_a_violation_and_its_name_is_not() {
    source("fn f() { unsafe { g() } }", &["crates/a/src/b.rs:2: `unsafe`, all code is safe"]);
    source("// unsafe\nconst A: &str = \"unsafe\"; const UNSAFE: u8 = 1; use r#unsafe;", &[]);
}

#[test]
fn only_tests_panic_on_an_error() {
    let unwrap = "crates/a/src/b.rs:3: `.unwrap(`, only tests panic on an error";
    let expect = "crates/a/src/b.rs:2: `.expect(`, only tests panic on an error";
    source("fn f() { g()\n.unwrap() }", &[unwrap]);
    source("fn f() { g().expect(\"g\") }", &[expect]);
    source("/// x.unwrap()\n#[expect(dead_code)]\nfn f() { g().unwrap_or(\".unwrap()\") }", &[]);
    source("#[cfg(test)]\nmod tests { fn f() { g().unwrap() } }", &[]);
    source("#[cfg(all(test, not(loom)))]\nfn f() { g().unwrap() }", &[]);
    source("#[tokio::test]\nasync fn f() { g().unwrap() }", &[]);
    for attribute in ["cfg(not(test))", "cfg(any(test, a))", "cfg(all(not(test), a))"] {
        source(&format!("#[{attribute}] fn f() {{\ng().unwrap() }}"), &[unwrap]);
    }
    let after = "#[cfg(test)] use a::{b, c};\nfn f() { g().unwrap() }";
    source(after, &[unwrap]);
    let bin = "crates/calculator/bin/b.rs";
    let text = "//! Docs.\nfn f() { g().unwrap() }";
    let expected = format!("{bin}:2: `.unwrap(`, only tests panic on an error");
    all(&[(bin, text), ("crates/a/benches/b.rs", text)], &[&expected]);
}

#[test]
fn a_module_declared_for_tests_is_a_test() {
    let text = "//! Docs.\nfn f() { g().unwrap() }";
    let declared = "//! Docs.\n#[cfg(test)]\nmod help;\n";
    all(&[("crates/a/src/lib.rs", declared), ("crates/a/src/help.rs", text)], &[]);
    all(&[("crates/a/src/b.rs", declared), ("crates/a/src/b/help/c.rs", text)], &[]);
    let expected = "crates/a/src/help.rs:2: `.unwrap(`, only tests panic on an error";
    all(&[("crates/a/src/b.rs", declared), ("crates/a/src/help.rs", text)], &[expected]);
}

#[test]
fn a_test_has_no_test_prefix() {
    let expected = "crates/a/src/b.rs:4: `fn test_a`, a test's name is a sentence that is true";
    source("#[tokio::test(start_paused = true)]\n#[x]\nasync fn test_a() {}", &[expected]);
    source("\n#[test]\nfn test_a() {}", &[expected]);
    source("#[test]\nfn a_test_fails() {}\nfn test_server() {}", &[]);
}

#[test]
fn every_test_runs_but_for_those_that_need_something() {
    let expected = "crates/a/src/b.rs:3: `#[ignore]`, only what needs something is left out: \
        #[ignore = \"needs ...\"]";
    source("#[test]\n#[ignore = \"needs nginx\"]\nfn a() {}", &[]);
    source("#[test]\n#[ignore]\nfn a() {}", &[expected]);
    source("#[test]\n#[ignore = \"slow\"]\nfn a() {}", &[expected]);
    source("#[test]\nfn ignore() {}\n// #[ignore]", &[]);
}

#[test]
fn a_module_is_no_mod_rs() {
    let expected = "crates/a/src/b/mod.rs:1: `mod.rs`, a module is `foo.rs` beside `foo/`";
    all(&[("crates/a/src/b/mod.rs", "//! Docs.")], &[expected]);
    all(&[("crates/a/src/b/a_mod.rs", "//! Docs.")], &[]);
}

#[test]
fn only_the_facade_has_features() {
    let expected = "crates/a/src/b.rs:2: `cfg(feature`, only the facade has features";
    source("#[cfg(feature = \"a\")] use a;", &[expected]);
    source("#![cfg_attr(all(unix, feature = \"a\"), b)]", &[expected]);
    source("const A: bool = cfg!(feature = \"a\");", &[expected]);
    source("#[cfg(unix)] fn cfg(feature: bool) {}\n// cfg(feature = \"a\")", &[]);
    all(&[("crates/cinchona/src/lib.rs", "//! Docs.\n#[cfg(feature = \"a\")]\nuse a;")], &[]);
}

#[test]
fn sources_have_no_clock_but_tokios() {
    let rule = "time is `tokio::time`, which tests pause";
    let instant = format!("crates/a/src/b.rs:2: `std::time::Instant`, {rule}");
    source("use std::time::Instant;", &[&instant]);
    source("use std::{fmt, time::{Duration, Instant as Std}};", &[&instant]);
    source("fn f() { g(std::time::Instant::now()); }", &[&instant]);
    let sleep = format!("crates/a/src/b.rs:2: `thread::sleep`, {rule}");
    source("fn f() { thread::sleep(time); }", &[&sleep]);
    source("use std::time::Duration; use tokio::time::{Instant, sleep};", &[]);
    source("fn f() -> impl Sized + use<> { A { thread: sleep } }", &[]);
    source("use std::{thread, time}; fn f() -> Instant { sleep() }", &[]);
    source("#[cfg(test)]\nmod tests { use std::time::Instant; }", &[]);
    all(&[("xtask/src/b.rs", "//! Docs.\nuse std::time::Instant;")], &[]);
}

#[test]
fn a_sleeping_test_has_a_paused_clock_or_a_reason() {
    let rule = "a test has `start_paused = true` or `// real clock: <reason>`";
    let expected = format!("crates/a/src/b.rs:4: `sleep(` on the real clock, {rule}");
    let body = "async fn a() {\ntokio::time::sleep(b).await }";
    source(&format!("#[tokio::test]\n{body}"), &[&expected]);
    source(&format!("#[tokio::test(start_paused = false)]\n{body}"), &[&expected]);
    let expected = expected.replace(":4:", ":5:");
    source(&format!("// real clock:\n#[tokio::test]\n{body}"), &[&expected]);
    source(&format!("// real clock: why\n\n#[tokio::test] {body}"), &[&expected]);
    source(&format!("#[tokio::test(start_paused = true)]\n{body}"), &[]);
    source(&format!("// real clock: a process\n// is real.\n#[tokio::test]\n{body}"), &[]);
    source(&format!("#[tokio::test] // real clock: a process\n{body}"), &[]);
    source("#[tokio::test]\nasync fn a() { clock.sleep(b); sleeping(c); } // sleep(", &[]);
    source("async fn a() { sleep(b).await }", &[]);
}

#[test]
fn a_library_has_at_most_12_public_types() {
    let lib = |count| {
        let types: String = (0..count).map(|n| format!("pub struct T{n};\n")).collect();
        format!("//! Docs.\n{types}")
    };
    let other = "//! Docs.\npub(crate) enum A {}\n#[doc(hidden)]\npub trait B {}\nenum C {}\n\
                 #[cfg(test)]\nmod tests { pub struct D; }\npub use x::E;\npub fn f() {}\n";
    let path = "crates/a/src/lib.rs";
    all(&[(path, &lib(12)), ("crates/a/src/other.rs", other)], &[]);
    let phases = "//! Docs.\npub struct LayerSettings;\npub struct LayerCounters;\n";
    all(&[(path, &lib(12)), ("crates/a/src/other.rs", phases)], &[]);
    let names = "T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11";
    let expected = "at most 12 a crate, or as many as ROOMIER allows it";
    let alias = "//! Docs.\npub type F = G;\n";
    let found = format!("{path}:1: 13 public types ({names}, F), {expected}");
    all(&[(path, &lib(12)), ("crates/a/src/other.rs", alias)], &[&found]);
    all(&[("crates/testkit/src/lib.rs", &lib(13)), ("crates/a/tests/b.rs", &lib(13))], &[]);
}

#[test]
fn a_layer_that_runs_has_set_and_its_settings_have_with() {
    let with = "#[must_use]\npub fn with_a(self) -> Self { self }";
    let found = |line: usize, name: &str| {
        let rule = "`with_*` is of a layer's settings; a layer that runs has `set_*`";
        format!("crates/a/src/b.rs:{line}: `{name}::with_a`, {rule}")
    };
    source(&format!("impl ALayer {{\n{with}\n}}"), &[&found(4, "ALayer")]);
    source(
        &format!("impl<T: Fn() -> A<B>> ALayer<T> where T: C {{\n{with}\n}}"),
        &[&found(4, "ALayer")],
    );
    source(&format!("impl ASettings {{\n{with}\n}}"), &[]);
    source(&format!("impl B for ALayer {{\n{with}\n}}"), &[]);
    source("impl ALayer { pub fn set_a(&self) {} fn with_a() {} pub(crate) fn with_b() {} }", &[]);
}

#[test]
fn a_layer_that_has_metrics_has_counters() {
    let found = "crates/a/src/b.rs:2: `ALayer` has no `counters`, what a layer counts is read by \
                 `counters()`";
    source("impl Observable for ALayer { }", &[found]);
    source("impl Observable for ALayer { }\nimpl ALayer { fn counters() {} }", &[found]);
    source("impl Observable for ALayer { }\nimpl ALayer { pub fn counters() {} }", &[]);
    source(
        "impl<T: S> Observable for ALayer<T> { }\nimpl<T> ALayer<T> { pub fn counters() {} }",
        &[],
    );
}

/// What is wrong with the modules of a crate: each is its name and what it holds.
#[track_caller]
fn modules(modules: &[(&str, &str)], expected: &[&str]) {
    let files: Vec<_> = modules
        .iter()
        .map(|(name, text)| (format!("crates/a/src/{name}.rs"), format!("//! Docs.\n{text}\n")))
        .collect();
    let files: Vec<_> = files.iter().map(|(path, text)| (&**path, &**text)).collect();
    all(&files, expected);
}

const ORDER: &str = "the uses between modules are an order";

#[test]
fn modules_that_use_each_other_are_a_circle() {
    let circle = format!("crates/a/src/b.rs:2: a circle of modules, b → c → b, {ORDER}");
    let lib = ("lib", "mod b; mod c;");
    for (b, c) in [
        ("use crate::c::C;", "use crate::b::B;"),
        ("use crate::{c::{C, D as E}, x};", "fn f() { crate::b::f() }"),
        ("fn f(c: super::c::C) {}", "use super::{b::{self}, y};"),
        ("use crate::c;", "use super::b;"),
        ("use crate::c::*;", "use crate::b::*;"),
    ] {
        modules(&[lib, ("b", b), ("c", c)], &[&circle]);
    }
    modules(&[lib, ("b", "use crate::c::C;"), ("c", "use other::b::B;")], &[]);
    let test = "#[cfg(test)]\nmod tests { use crate::b::B; }\n#[cfg(test)]\nuse crate::b::D;";
    modules(&[lib, ("b", "use crate::c::C; // crate::c"), ("c", test)], &[]);
}

#[test]
fn a_longer_circle_is_one_violation_and_shown_in_full() {
    let used = |other: &str| format!("use crate::{other}::Of{other};");
    let (b, c, d) = (used("c"), used("d"), used("b"));
    let files = [("lib", "mod b; mod c; mod d;"), ("b", &*b), ("c", &*c), ("d", &*d)];
    let circle = format!("crates/a/src/b.rs:2: a circle of modules, b → c → d → b, {ORDER}");
    modules(&files, &[&circle]);
}

#[test]
fn a_module_and_its_parent_are_a_circle_where_each_uses_the_other() {
    let b = ("b", "use crate::A;");
    let circle = format!("crates/a/src/b.rs:2: a circle of modules, b → the root → b, {ORDER}");
    let used = ["mod b; use b::B; struct A;", "mod b; fn f() { b::f() } struct A;"];
    for lib in used {
        let circle =
            "crates/a/src/lib.rs:2: a circle of modules, the root → b → the root".to_owned();
        modules(&[("lib", lib), b], &[&format!("{circle}, {ORDER}")]);
    }
    modules(&[("lib", "mod b; pub use b::B; struct A;"), b], &[]);
    let both = "mod b; pub use b::B; struct A; fn f(b: B) {}";
    let root =
        circle.replace("b.rs", "lib.rs").replace("b → the root → b", "the root → b → the root");
    modules(&[("lib", both), b], &[&root]);
    let child = ("b/c", "use super::B;");
    let circle = format!("crates/a/src/b.rs:2: a circle of modules, b → b::c → b, {ORDER}");
    modules(&[("lib", "mod b;"), ("b", "mod c; use c::C; struct B;"), child], &[&circle]);
    modules(&[("lib", "mod b;"), ("b", "mod c; pub(crate) use c::C; struct B;"), child], &[]);
}

#[test]
fn a_name_leads_to_the_module_that_defines_it() {
    let lib = ("lib", "mod b; mod c; pub use b::{B, X as Y};");
    modules(&[lib, ("b", "struct B;"), ("c", "use crate::B;")], &[]);
    let circle = format!("crates/a/src/b.rs:2: a circle of modules, b → c → b, {ORDER}");
    modules(&[lib, ("b", "use crate::c::C;"), ("c", "use crate::Y;")], &[&circle]);
    let far = ("lib", "mod b; mod c; mod d; pub use d::B;");
    modules(
        &[far, ("d", "pub use crate::b::B;"), ("b", "use crate::c::C;"), ("c", "use crate::B;")],
        &[&circle],
    );
    let other = ("lib", "mod b; mod c; pub use tonic::Code;");
    modules(&[other, ("b", "use crate::c::C;"), ("c", "use crate::Code;")], &[]);
}

#[test]
fn programs_of_a_package_are_crates_of_their_own() {
    let used = |other: &str| format!("//! Docs.\nuse crate::{other}::Of{other};\n");
    let (b, c) = (used("c"), used("b"));
    let root = "//! Docs.\nmod b; mod c;\n";
    let (one, two) = ("crates/a/bin/one/main.rs", "crates/a/bin/two/main.rs");
    all(
        &[(one, root), ("crates/a/bin/one/b.rs", &b), (two, root), ("crates/a/bin/two/c.rs", &c)],
        &[],
    );
    let circle = format!("crates/a/bin/one/b.rs:2: a circle of modules, b → c → b, {ORDER}");
    all(&[(one, root), ("crates/a/bin/one/b.rs", &b), ("crates/a/bin/one/c.rs", &c)], &[&circle]);
}

#[test]
fn a_decision_names_no_other_and_is_beside_no_service() {
    let lib = ("crates/policy/src/lib.rs", "//! Docs.\npub mod a;\npub mod b;\npub mod clock;\n");
    let rule = "a decision names no other";
    for (path, used) in [
        ("crates/policy/src/a.rs", "use crate::b::B;"),
        ("crates/policy/src/a.rs", "use crate::{clock, b::B};"),
        ("crates/policy/src/a.rs", "fn f() { super::b::f() }"),
        ("crates/policy/src/a/c.rs", "use crate::b;"),
    ] {
        let expected = format!("{path}:2: a names b, {rule}");
        all(&[lib, (path, &format!("//! Docs.\n{used}\n"))], &[&expected]);
    }
    for (path, used) in [
        ("crates/policy/src/a.rs", "use crate::{a::c, clock::later, code::Code};"),
        ("crates/policy/src/a.rs", "#[cfg(test)]\nmod tests { use crate::b::B; }"),
        ("crates/policy/src/code.rs", "use crate::b::B;"),
        ("crates/other/src/a.rs", "use crate::b::B;"),
    ] {
        all(&[lib, (path, &format!("//! Docs.\n{used}\n"))], &[]);
    }
    let rule = "decisions are in `crates/policy`, which knows no host";
    for path in [
        "crates/shed/src/gradient.rs",
        "crates/shed/src/gradient/tests.rs",
        "crates/cluster/src/view/roll.rs",
    ] {
        let expected = format!("{path}:1: a decision beside a service, {rule}");
        all(&[(path, "//! Docs.\n")], &[&expected]);
    }
    all(&[("crates/shed/src/gradients.rs", "//! Docs.\n")], &[]);
}

#[test]
fn what_gives_a_changed_copy_must_be_used() {
    let rule = "what gives a changed copy is `#[must_use]`";
    let expected = format!("crates/a/src/b.rs:2: `fn with_a`, {rule}");
    for head in ["fn with_a(self) -> Self", "const fn with_a(self, b: u8) -> A<B>"] {
        source(&format!("pub {head} {{ c }}"), &[&expected]);
        source(&format!("#[must_use] pub {head} {{ c }}"), &[]);
        source(&format!("#[must_use]\n#[x] pub {head} {{ c }}"), &[]);
        source(&format!("pub(crate) {head} {{ c }}"), &[]);
        source(&format!("#[cfg(test)]\nmod tests {{ pub {head} {{ c }} }}"), &[]);
    }
    source("pub fn with_a<F: Fn(u8) -> Result<B, C>>(self, f: F) -> Self { c }", &[&expected]);
    source("pub fn with_a<F: Fn(u8) -> B>(self, f: F) -> Result<Self, C> { c }", &[]);
    source("pub fn with_a(self) {}\npub fn width(self) -> Self { c }", &[]);
}

#[test]
fn the_facade_has_at_most_48_lines_beside_its_docs() {
    let facade = |lines| format!("{}{}", "//! Docs.\n".repeat(60), "use x;\n".repeat(lines));
    let path = "crates/cinchona/src/lib.rs";
    let expected = format!("{path}:1: 49 lines beside its docs, the facade has at most 48");
    all(&[(path, &facade(49))], &[&expected]);
    all(&[(path, &facade(48))], &[]);
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let home = concat!("/", "home/");
    let expected = format!("a.md:2: a path under `{home}`, no file names a path of one machine");
    for line in [format!("see {home}me/x"), format!("\"{home}x\""), format!("x={home}me")] {
        all(&[("a.md", &format!("\n{line}\n"))], &[&expected]);
    }
    all(&[("a.md", &format!("https://example.com{home}x $HOME{home} ~/x /homes/"))], &[]);
    let root = concat!("/", "root/");
    let expected = format!("a:1: a path under `{root}`, no file names a path of one machine");
    all(&[("a", &format!("(cd {root}x)"))], &[&expected]);
    all(&[("a", &format!("the workspace{root} crates/root/x"))], &[]);
}

#[test]
fn manifests_are_checked_with_the_sources() {
    let text = "[package]\nname = 'cinchona-a'\n[dependencies]\ncinchona-b = '1'\n";
    let what = "cinchona-a depends on cinchona-b, a policy names no other policy";
    all(&[("crates/a/Cargo.toml", text)], &[&format!("crates/a/Cargo.toml:4: {what}")]);
}

#[test]
fn a_file_that_is_being_edited_is_no_panic() {
    for text in ["#[", "#[cfg(test)]", "#[test] fn", "fn f(", "use a::{", "}}", "cfg", "#[x(", "."]
    {
        source(text, &[]);
    }
}

#[test]
fn without_git_the_walk_finds_what_git_would() {
    let root = crate::command::root();
    let walked = walk(&root).unwrap();
    assert!(walked.contains("xtask/src/tidy/tests.rs") && walked.contains("Cargo.toml"));
    assert!(!walked.iter().any(|path| path.starts_with("target/") || path.starts_with(".git/")));
    let Some(tracked) = git_files(&root) else { return };
    let missing: Vec<_> =
        tracked.difference(&walked).filter(|path| root.join(path).exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
