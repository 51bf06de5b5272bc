//! Holds what is in `deploy/` to the program: the configuration in the manifest is one.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod house;
mod program;

use house::Folder;
use program::{Outcome, PATIENCE, countersign, finish, run};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

const MANIFEST: &str = include_str!("../deploy/kubernetes.yaml");
const PAGE: &str = include_str!("../docs/deploy.md");

/// Where the manifest mounts secrets.
const MOUNT: &str = "/run/countersign";

#[test]
fn the_configuration_in_the_manifest_has_no_mistakes() {
    let outcome = check(&embedded());
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.contains("kraken_main") && outcome.stdout.contains("the venue's own hosts"), "{outcome:?}");
}

#[test]
fn a_mistake_in_the_manifest_would_be_found() {
    assert_eq!(check(&embedded().replace("[store]", "[stores]")).code, Some(64));
    assert_eq!(check(&embedded().replace("kraken.secret", "kraken.gone")).code, Some(64));
}

#[test]
fn the_manifest_points_every_name_of_its_venue_here_and_mounts_every_file() {
    let kraken = countersign::venue::by_name("kraken").unwrap();
    for endpoint in kraken.endpoints() {
        assert!(MANIFEST.contains(endpoint.host), "{} is not in `hostAliases`", endpoint.host);
    }
    assert!(MANIFEST.contains(&format!("mountPath: {MOUNT}, readOnly: true")));
    for line in embedded().lines().filter(|line| line.contains(MOUNT)) {
        for file in line.split('"').filter_map(|word| word.strip_prefix(&format!("{MOUNT}/"))) {
            let given = MANIFEST.matches(file).count();
            assert!(given > 1, "nothing in the head of the manifest makes {file}");
        }
    }
}

#[test]
fn the_page_tells_of_every_library_that_env_knows() {
    let folder = Folder::new();
    let help = run(folder.path(), &["env", "--help"]);
    let (_, known) = help.stdout.split_once("possible values: ").unwrap();
    let (known, _) = known.split_once(']').unwrap();
    let names: Vec<&str> = known.split(',').map(str::trim).collect();
    assert!(names.len() > 5, "{names:?}");
    for name in names {
        assert!(PAGE.contains(&format!("`{name}`")), "docs/deploy.md does not tell of {name}");
    }
}

/// The text below `proxy.toml: |`, without its indentation.
fn embedded() -> String {
    let (_, below) = MANIFEST.split_once("  proxy.toml: |\n").unwrap();
    let block = below.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    block.map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect()
}

/// `countersign check` of a configuration, with its secrets in a folder as Kubernetes mounts them.
fn check(toml: &str) -> Outcome {
    let folder = Folder::new();
    let place = folder.path().display().to_string();
    let write = |toml: &str| fs::write(folder.path().join("proxy.toml"), toml.replace(MOUNT, &place)).unwrap();
    write(&embedded());
    let certs = ["certs", "--directory", &place];
    let made = finish(&mut countersign(folder.path(), &certs), PATIENCE);
    assert_eq!(made.code, Some(0), "{made:?}");
    for name in ["kraken.key", "kraken.secret"] {
        let path = folder.path().join(name);
        fs::write(&path, "c2VjcmV0c2VjcmV0c2VjcmV0\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
    }
    write(toml);
    run(folder.path(), &["check"])
}
