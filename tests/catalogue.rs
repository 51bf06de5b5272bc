//! Holds `tests/catalogue.md` to the tests: every case is named once, and every test that it names exists.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How many cases each part of the catalogue has.
const PARTS: &[(char, u32)] = &[('B', 25), ('W', 20), ('A', 19), ('P', 11), ('U', 15), ('N', 13), ('D', 15)];

#[test]
fn every_case_is_held_by_a_test_or_says_why_not() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("tests/catalogue.md")).expect("the page is there");
    let mut code = String::new();
    for folder in ["tests", "src"] {
        collect(&root.join(folder), &mut code);
    }
    let rows = rows(&page);
    let mut missing = Vec::new();
    for (part, count) in PARTS {
        for number in 1..=*count {
            let case = format!("{part}{number}");
            match rows.get(&case) {
                None => missing.push(format!("{case} has no row")),
                Some(text) => missing.extend(check(&case, text, &code)),
            }
        }
    }
    let total: u32 = PARTS.iter().map(|(_, count)| count).sum();
    assert_eq!(rows.len(), total as usize, "a row names a case that the catalogue does not have");
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

#[test]
fn a_row_that_names_a_test_that_is_not_there_is_found() {
    assert!(!check("B1", "`no_such_test_anywhere`", "fn another_test() {}").is_empty());
    assert!(!check("B1", "not yet", "").is_empty(), "a reason takes more than two words");
    assert!(check("B1", "does not apply: HTTP/2 is not spoken here", "").is_empty());
}

/// What is wrong with a row: it names tests in backticks, or begins with a reason.
fn check(case: &str, text: &str, code: &str) -> Vec<String> {
    let named: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    let is_reason = text.starts_with("does not apply: ") || text.starts_with("not yet: ");
    if named.is_empty() && !is_reason {
        return vec![format!("{case} names no test and gives no reason")];
    }
    let is_absent = |name: &&str| !is_reason && !code.contains(&format!("fn {name}("));
    named.into_iter().filter(is_absent).map(|name| format!("{case}: there is no test `{name}`")).collect()
}

fn rows(page: &str) -> BTreeMap<String, String> {
    let cells = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        Some((cells.next()?, cells.next()?))
    });
    let is_case = |name: &str| name.len() > 1 && name[1..].bytes().all(|byte| byte.is_ascii_digit());
    cells.filter(|(name, _)| is_case(name)).map(|(name, text)| (name.to_owned(), text.to_owned())).collect()
}

fn collect(folder: &Path, code: &mut String) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, code);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            code.push_str(&std::fs::read_to_string(&path).expect("a text"));
        }
    }
}
