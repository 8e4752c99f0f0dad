//! Which crate uses which, compared with the table in docs/architecture.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use serde_json::Value;

const PAGE: &str = "docs/architecture.md";
const ALLOWED: &str = "dev/xtask/core_dependencies.txt";

/// A crate of the workspace.
#[derive(Debug, Default)]
struct Crate {
    /// `core`, `shell` or `dev`.
    room: String,
    /// The manifest's text.
    manifest: String,
    uses: BTreeSet<String>,
    test_uses: BTreeSet<String>,
    outside: BTreeSet<String>,
}

/// Compares; every difference is a problem.
pub fn check(root: &Path) -> Result<Vec<String>, String> {
    let crates = crates(root)?;
    let read =
        |path: &str| std::fs::read_to_string(root.join(path)).map_err(|error| format!("{path}: {error}"));
    let table = table(&read(PAGE)?, &crates.keys().cloned().collect())?;
    let allowed = read(ALLOWED)?;
    let allowed: BTreeSet<&str> = allowed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let mut problems = compare(&crates, &table);
    problems.extend(outside(&crates, &allowed));
    for (name, krate) in &crates {
        if !krate.manifest.contains("[lints]\nworkspace = true") {
            problems.push(format!("{name}: its manifest lacks `[lints] workspace = true`"));
        }
    }
    problems.extend(missing_bans(&read("clippy.toml")?, &read("core/clippy.toml")?));
    Ok(problems)
}

fn crates(root: &Path) -> Result<BTreeMap<String, Crate>, String> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let metadata: Value =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata: no packages")?;
    let name_of = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let mut crates = BTreeMap::new();
    for package in packages {
        let manifest =
            Path::new(package["manifest_path"].as_str().ok_or("cargo metadata: no manifest path")?);
        let room = manifest.strip_prefix(root).ok().and_then(|path| path.components().next());
        let mut krate = Crate {
            room: room.map(|room| room.as_os_str().to_string_lossy().into_owned()).unwrap_or_default(),
            manifest: std::fs::read_to_string(manifest)
                .map_err(|error| format!("{}: {error}", manifest.display()))?,
            ..Crate::default()
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let is_ours = dependency["path"].is_string();
            match (is_ours, dependency["kind"].as_str()) {
                (true, Some("dev")) => krate.test_uses.insert(name_of(dependency)),
                (true, _) => krate.uses.insert(name_of(dependency)),
                (false, Some("dev")) => false,
                (false, _) => krate.outside.insert(name_of(dependency)),
            };
        }
        crates.insert(name_of(package), krate);
    }
    Ok(crates)
}

/// The table's rows: crate and what it may use, short names (`kit`) made long (`hw-kit`).
fn table(page: &str, names: &BTreeSet<String>) -> Result<BTreeMap<String, BTreeSet<String>>, String> {
    let long = |short: &str| {
        let short = short.trim().trim_matches('`');
        let prefixed = format!("hw-{short}");
        if names.contains(&prefixed) { prefixed } else { short.to_owned() }
    };
    let mut rows = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [krate, _, uses] = cells.as_slice() else { continue };
        if *krate == "crate" || krate.starts_with("---") {
            continue;
        }
        let uses =
            uses.split(',').map(str::trim).filter(|name| !["", "–", "-"].contains(name)).map(long).collect();
        rows.insert(long(krate), uses);
    }
    if rows.is_empty() {
        Err(format!("{PAGE}: no table `| crate | responsible for | may use |`"))
    } else {
        Ok(rows)
    }
}

fn compare(crates: &BTreeMap<String, Crate>, table: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, krate) in crates {
        let Some(may) = table.get(name) else {
            problems.push(format!("{PAGE}: {name} has no row"));
            continue;
        };
        problems.extend(
            krate.uses.difference(may).map(|used| format!("{name} uses {used}, which {PAGE} does not allow")),
        );
        let is_for_tests = |used: &&String| crates.get(*used).is_some_and(|used| used.room == "dev");
        let test_uses = krate.test_uses.difference(may).filter(|used| !is_for_tests(used));
        problems
            .extend(test_uses.map(|used| format!("{name} tests with {used}, which {PAGE} does not allow")));
    }
    let gone = table.keys().filter(|name| !crates.contains_key(*name));
    problems.extend(gone.map(|name| format!("{PAGE}: there is no crate {name}")));
    problems
}

fn outside(crates: &BTreeMap<String, Crate>, allowed: &BTreeSet<&str>) -> Vec<String> {
    let core = || crates.iter().filter(|(_, krate)| krate.room == "core");
    let mut problems: Vec<String> = core()
        .flat_map(|(name, krate)| krate.outside.iter().map(move |used| (name, used)))
        .filter(|(_, used)| !allowed.contains(used.as_str()))
        .map(|(name, used)| format!("{name} uses {used}, which {ALLOWED} does not allow in core/"))
        .collect();
    let used: BTreeSet<&str> = core().flat_map(|(_, krate)| &krate.outside).map(String::as_str).collect();
    let idle = allowed.iter().filter(|name| !name.starts_with('#') && !used.contains(**name));
    problems.extend(idle.map(|name| format!("{ALLOWED}: no crate of core/ uses {name}: remove it")));
    problems
}

/// The nearest clippy.toml replaces the one above it, so core's must repeat the root's bans.
fn missing_bans(root: &str, core: &str) -> Vec<String> {
    let paths = |text: &str| -> BTreeSet<String> {
        let starts = text.split("path = \"").skip(1);
        starts.filter_map(|rest| rest.split('"').next().map(str::to_owned)).collect()
    };
    let (root, core) = (paths(root), paths(core));
    root.difference(&core).map(|path| format!("core/clippy.toml does not repeat the ban of {path}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE_TEXT: &str = "text\n| crate | responsible for | may use |\n|---|---|---|\n| hw-kit | ids | – |\n| `hw-store` | logs | kit |\n| headwater | all | kit, store |\n";

    fn check(edges: &[(&str, &str)], want: &[&str]) {
        let names: BTreeSet<String> = ["hw-kit", "hw-store", "headwater"].map(str::to_owned).into();
        let mut crates: BTreeMap<String, Crate> = BTreeMap::new();
        for name in &names {
            let mut krate = Crate { room: "core".to_owned(), ..Crate::default() };
            let uses = edges.iter().filter(|(from, _)| from == name).map(|(_, to)| (*to).to_owned());
            krate.uses = uses.collect();
            crates.insert(name.clone(), krate);
        }
        let got = compare(&crates, &table(PAGE_TEXT, &names).unwrap());
        assert_eq!(got, want);
    }

    #[test]
    fn arrows_must_be_the_tables() {
        let right = [("hw-store", "hw-kit"), ("headwater", "hw-kit"), ("headwater", "hw-store")];
        check(&right, &[]);
        check(&right[..2], &[]);
        let wrong = [right.as_slice(), &[("hw-kit", "headwater")]].concat();
        check(&wrong, &["hw-kit uses headwater, which docs/architecture.md does not allow"]);
    }

    #[test]
    fn a_table_without_rows_and_a_missing_ban_are_named() {
        assert!(table("no table", &BTreeSet::new()).is_err());
        let root = "x = [{ path = \"a::b\" }, { path = \"c\" }]";
        assert_eq!(missing_bans(root, "path = \"c\""), ["core/clippy.toml does not repeat the ban of a::b"]);
    }
}
