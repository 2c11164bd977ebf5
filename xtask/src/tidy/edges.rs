//! Which crate may name which: facade → policies → core → plumbing → decisions, and the
//! testkit only in tests.

use super::violation::Violation;
use crate::manifest::Manifest;

const FACADE: &str = "cinchona";
const TESTKIT: &str = "cinchona-testkit";
const CORE: &str = "cinchona-core";
/// What several rooms need and no user sees.
const PLUMBING: &str = "cinchona-plumbing";
/// What the policies decide, without a host.
const DECISIONS: &str = "cinchona-policy";
/// Puts gRPC's service config into the policies, so it stands above them.
const CONFIG: &str = "cinchona-config";
/// The crate whose stores are crates of their own, for what these depend on.
const IDEMPOTENCY: &str = "cinchona-idempotency";
const STORES: [&str; 2] = ["cinchona-redb", "cinchona-redis"];
/// The crate whose spans another exports, for the same reason.
const OBSERVE: &str = "cinchona-observe";
const OTLP: &str = "cinchona-otlp";

/// What a decision does not know.
const HOSTS: [&str; 7] =
    ["tonic", "tower", "tower-layer", "tower-service", "hyper", "h2", "http-body"];

/// The edges of one manifest that the rules forbid.
pub(super) fn check(path: &str, manifest: &Manifest<'_>) -> Vec<Violation> {
    let Some(package) = manifest.package().filter(|package| is_library(package)) else {
        return Vec::new();
    };
    let mut violations = Vec::new();
    for dependency in manifest.dependencies().into_iter().filter(|dependency| !dependency.dev) {
        let named = &dependency.package;
        let rule = match (package, named.as_str()) {
            (_, TESTKIT) => "a library has the testkit only in [dev-dependencies]",
            (FACADE, _) => continue,
            (DECISIONS, named) if is_ours(named) => "decisions name no other crate of ours",
            (DECISIONS, named) if HOSTS.contains(&named) => "decisions know no host",
            (_, DECISIONS) => continue,
            (PLUMBING, named) if is_library(named) => {
                "plumbing names no other crate of ours but policy"
            }
            (_, PLUMBING) => continue,
            (CORE, named) if is_library(named) => {
                "core names no other crate of ours but plumbing and policy"
            }
            (_, FACADE) => "a policy does not name the facade",
            (CONFIG, _) => continue,
            (store, IDEMPOTENCY) if STORES.contains(&store) => continue,
            (OTLP, OBSERVE) => continue,
            (_, named) if is_policy(named) => "a policy names no other policy",
            _ => continue,
        };
        let what = format!("{package} depends on {named}");
        violations.push(Violation { path: path.to_owned(), line: dependency.line, what, rule });
    }
    violations
}

fn is_library(package: &str) -> bool {
    is_ours(package) && package != TESTKIT
}

fn is_ours(package: &str) -> bool {
    package == FACADE || package.starts_with("cinchona-")
}

fn is_policy(package: &str) -> bool {
    is_library(package) && !matches!(package, FACADE | CORE | PLUMBING | DECISIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn forbidden(package: &str, dependencies: &str) -> Vec<&'static str> {
        let text = format!("[package]\nname = \"{package}\"\n{dependencies}\n");
        let violations = check("crates/x/Cargo.toml", &Manifest::parse(&text));
        violations.into_iter().map(|violation| violation.rule).collect()
    }

    #[test]
    fn a_policy_names_no_other_policy() {
        let rule = "a policy names no other policy";
        let own = "cinchona-retry";
        assert_eq!(forbidden(own, "[dependencies]\ncinchona-fault.workspace = true"), [rule]);
        assert_eq!(forbidden(own, "[dependencies.cinchona-fault]\nworkspace = true"), [rule]);
        assert_eq!(forbidden(own, "[dependencies]\nx = { package = 'cinchona-fault' }"), [rule]);
        assert_eq!(forbidden(own, "[dependencies]\ncinchona-core.workspace = true"), [""; 0]);
        assert_eq!(forbidden(own, "[dev-dependencies]\ncinchona-fault = '1'"), [""; 0]);
    }

    #[test]
    fn a_store_names_the_crate_that_it_is_a_store_of() {
        let edge = "[dependencies]\ncinchona-idempotency.workspace = true";
        assert_eq!(forbidden("cinchona-redis", edge), [""; 0]);
        assert_eq!(forbidden("cinchona-retry", edge), ["a policy names no other policy"]);
    }

    #[test]
    fn the_exporter_names_the_crate_whose_spans_it_exports() {
        let edge = "[dependencies]\ncinchona-observe.workspace = true";
        assert_eq!(forbidden(OTLP, edge), [""; 0]);
        assert_eq!(forbidden("cinchona-retry", edge), ["a policy names no other policy"]);
    }

    #[test]
    fn a_forbidden_edge_is_shown_where_it_stands() {
        let text = "[package]\nname = \"cinchona-a\"\n[dependencies]\ncinchona-b = '1'\n";
        let violations = check("crates/a/Cargo.toml", &Manifest::parse(text));
        assert_eq!(
            violations.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["crates/a/Cargo.toml:4: cinchona-a depends on cinchona-b, \
                a policy names no other policy"]
        );
    }

    #[test]
    fn core_and_policies_do_not_look_up() {
        let core = "core names no other crate of ours but plumbing and policy";
        assert_eq!(forbidden(CORE, "[dependencies]\ncinchona-retry = '1'"), [core]);
        assert_eq!(forbidden(CORE, "[dependencies]\ncinchona = '1'"), [core]);
        assert_eq!(forbidden(CORE, "[dependencies]\ntonic = '1'"), [""; 0]);
        assert_eq!(forbidden(CORE, "[dependencies]\ncinchona-plumbing = '1'"), [""; 0]);
        let plumbing = "plumbing names no other crate of ours but policy";
        assert_eq!(forbidden(PLUMBING, "[dependencies]\ncinchona-core = '1'"), [plumbing]);
        assert_eq!(forbidden(PLUMBING, "[dependencies]\ncinchona = '1'"), [plumbing]);
        let facade = "a policy does not name the facade";
        assert_eq!(forbidden("cinchona-retry", "[dependencies]\ncinchona = '1'"), [facade]);
    }

    #[test]
    fn decisions_name_nobody_and_anybody_may_name_them() {
        let edge = "[dependencies]\ncinchona-policy.workspace = true";
        for package in [PLUMBING, CORE, "cinchona-retry", CONFIG, FACADE] {
            assert_eq!(forbidden(package, edge), [""; 0], "{package}");
        }
        for named in [PLUMBING, CORE, "cinchona-retry", FACADE] {
            let edge = format!("[dependencies]\n{named} = '1'");
            assert_eq!(forbidden(DECISIONS, &edge), ["decisions name no other crate of ours"]);
        }
        assert_eq!(forbidden(DECISIONS, "[dependencies]\ntokio = '1'"), [""; 0]);
        for host in HOSTS {
            let edge = format!("[dependencies]\n{host} = '1'");
            assert_eq!(forbidden(DECISIONS, &edge), ["decisions know no host"], "{host}");
        }
    }

    #[test]
    fn only_tests_and_the_root_package_have_the_testkit() {
        let rule = "a library has the testkit only in [dev-dependencies]";
        for library in ["cinchona-retry", CORE, FACADE] {
            assert_eq!(forbidden(library, "[dependencies]\ncinchona-testkit = '1'"), [rule]);
            assert_eq!(forbidden(library, "[dev-dependencies]\ncinchona-testkit = '1'"), [""; 0]);
        }
        assert_eq!(forbidden("calculator", "[dependencies]\ncinchona-testkit = '1'"), [""; 0]);
    }

    #[test]
    fn the_facade_names_every_policy() {
        let policies = "[dependencies]\ncinchona-retry = '1'\ncinchona-fault = '1'";
        assert_eq!(forbidden(FACADE, policies), [""; 0]);
    }
}
