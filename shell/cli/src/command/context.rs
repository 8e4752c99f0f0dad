//! `context`: saved connection settings, in the `nats` tool's own files.
//!
//! `$XDG_CONFIG_HOME/nats/context/<name>.json` holds one context; `context.txt` beside that folder names the
//! selected one. Keys that this program does not know are kept when a file is written again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::connect::Global;
use super::error::Failure;
use super::output::{self, Facts, Table, say};

/// One saved context, with the file's keys.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Context {
    pub description: String,
    pub url: String,
    pub socks_proxy: String,
    pub token: String,
    pub user: String,
    pub password: String,
    pub creds: String,
    pub nkey: String,
    pub cert: String,
    pub key: String,
    pub ca: String,
    pub nsc: String,
    pub jetstream_domain: String,
    pub jetstream_api_prefix: String,
    pub jetstream_event_prefix: String,
    pub inbox_prefix: String,
    pub user_jwt: String,
    pub user_seed: String,
    pub color_scheme: String,
    pub tls_first: bool,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The folder that holds contexts.
#[derive(Debug, Clone)]
pub struct Contexts {
    root: PathBuf,
}

impl Contexts {
    /// The user's own folder: below `$XDG_CONFIG_HOME`, or `~/.config`.
    pub fn of_user() -> Result<Self, Failure> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let config = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
        let config = config.ok_or_else(|| {
            Failure::Usage(
                "neither XDG_CONFIG_HOME nor HOME is set, so there is no place for contexts".into(),
            )
        })?;
        Ok(Self { root: config.join("nats") })
    }

    fn path(&self, name: &str) -> Result<PathBuf, Failure> {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
            return Err(Failure::Usage(format!("{name:?} is not a name for a context")));
        }
        Ok(self.root.join("context").join(format!("{name}.json")))
    }

    /// The known names, sorted.
    pub fn names(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.root.join("context")) else { return Vec::new() };
        let stem = |path: PathBuf| match path.extension() {
            Some(extension) if extension == "json" => Some(path.file_stem()?.to_str()?.to_owned()),
            _ => None,
        };
        let mut names: Vec<String> = entries.flatten().filter_map(|entry| stem(entry.path())).collect();
        names.sort();
        names
    }

    /// The selected context's name.
    pub fn selected(&self) -> Option<String> {
        let name = std::fs::read_to_string(self.root.join("context.txt")).ok()?;
        Some(name.trim().to_owned()).filter(|name| !name.is_empty())
    }

    /// Reads a context.
    pub fn load(&self, name: &str) -> Result<Context, Failure> {
        let path = self.path(name)?;
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Failure::Usage(format!("unknown context {name:?}")));
            }
            Err(error) => return Err(Failure::file("read", path, error)),
        };
        serde_json::from_str(&text).map_err(|error| Failure::file("understand", path, error))
    }

    fn save(&self, name: &str, context: &Context) -> Result<PathBuf, Failure> {
        let path = self.path(name)?;
        let text = serde_json::to_string(context).map_err(|error| Failure::file("write", &path, error))?;
        write_private(&path, &output::indent_json(&text))?;
        Ok(path)
    }

    fn select(&self, name: &str) -> Result<(), Failure> {
        if let Some(previous) = self.selected() {
            write_private(&self.root.join("previous-context.txt"), &previous)?;
        }
        write_private(&self.root.join("context.txt"), name)
    }

    fn unselect(&self) -> Result<(), Failure> {
        let Some(previous) = self.selected() else { return Ok(()) };
        write_private(&self.root.join("previous-context.txt"), &previous)?;
        let path = self.root.join("context.txt");
        std::fs::remove_file(&path).map_err(|error| Failure::file("remove", path, error))
    }
}

/// Writes a file that only its owner may read, as it can hold a password; a crash leaves the old one whole.
fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    use std::io::Write;
    let failed = |error: std::io::Error| Failure::file("write", path, error);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&fresh).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&fresh, path).map_err(failed)
}

/// What can be done with contexts.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Save the connection flags of this command line under a name
    #[command(visible_aliases = ["create", "save"])]
    Add {
        name: String,
        /// A friendly description
        #[arg(long, default_value = "")]
        description: String,
        /// Make it the selected context
        #[arg(long)]
        select: bool,
    },
    /// List the known contexts
    #[command(visible_aliases = ["list", "l"])]
    Ls {
        /// Print the contexts as JSON
        #[arg(short, long)]
        json: bool,
        /// Print only the names
        #[arg(short, long)]
        names: bool,
    },
    /// Select the context that is used when none is named
    #[command(visible_aliases = ["switch", "set"])]
    Select { name: String },
    /// Select no context
    Unselect,
    /// Show a context, the selected one if none is named
    #[command(visible_alias = "show")]
    Info {
        name: Option<String>,
        /// Print the context as JSON
        #[arg(short, long)]
        json: bool,
    },
    /// Copy a context, with the connection flags of this command line applied
    #[command(visible_alias = "cp")]
    Copy {
        source: String,
        name: String,
        /// A friendly description
        #[arg(long)]
        description: Option<String>,
        /// Make it the selected context
        #[arg(long)]
        select: bool,
    },
    /// Remove a context
    #[command(visible_alias = "remove")]
    Rm {
        name: String,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
}

/// Runs a context command; no server is contacted.
pub fn run(global: &Global, command: Command) -> Result<(), Failure> {
    let contexts = Contexts::of_user()?;
    match command {
        Command::Add { name, description, select } => {
            let base = contexts.load(&name).unwrap_or_default();
            let mut context = global.over(base);
            if !description.is_empty() {
                context.description = description;
            }
            store(&contexts, &name, &context, select)
        }
        Command::Copy { source, name, description, select } => {
            if contexts.names().contains(&name) {
                return Err(Failure::Usage(format!("context {name:?} already exists")));
            }
            let mut context = global.over(contexts.load(&source)?);
            context.description = description.unwrap_or(context.description);
            store(&contexts, &name, &context, select)
        }
        Command::Ls { json, names } => list(&contexts, json, names),
        Command::Select { name } => {
            let context = contexts.load(&name)?;
            contexts.select(&name)?;
            show(&contexts, &name, &context)
        }
        Command::Unselect => {
            contexts.unselect()?;
            say!("No context is selected");
            Ok(())
        }
        Command::Info { name, json } => {
            let name = name.or_else(|| contexts.selected());
            let name =
                name.ok_or_else(|| Failure::Usage("no context is selected and none was named".into()))?;
            let context = contexts.load(&name)?;
            if json { output::print_json(&context) } else { show(&contexts, &name, &context) }
        }
        Command::Rm { name, force } => remove(&contexts, &name, force),
    }
}

fn store(contexts: &Contexts, name: &str, context: &Context, select: bool) -> Result<(), Failure> {
    contexts.save(name, context)?;
    if select {
        contexts.select(name)?;
    }
    show(contexts, name, context)
}

fn remove(contexts: &Contexts, name: &str, force: bool) -> Result<(), Failure> {
    let path = contexts.path(name)?;
    contexts.load(name)?;
    if contexts.selected().as_deref() == Some(name) {
        return Err(Failure::Usage(format!("context {name:?} is the selected one, unselect it first")));
    }
    output::confirm(&format!("removing the context {name}"), force)?;
    std::fs::remove_file(&path).map_err(|error| Failure::file("remove", path, error))
}

fn list(contexts: &Contexts, json: bool, names: bool) -> Result<(), Failure> {
    let known = contexts.names();
    if names {
        known.iter().for_each(|name| output::line(name));
        return Ok(());
    }
    let loaded: Vec<(String, Context)> = known
        .into_iter()
        .map(|name| contexts.load(&name).map(|context| (name, context)))
        .collect::<Result<_, _>>()?;
    if json {
        #[derive(Serialize)]
        struct Named<'a> {
            name: &'a str,
            #[serde(flatten)]
            context: &'a Context,
        }
        let all: Vec<Named> = loaded.iter().map(|(name, context)| Named { name, context }).collect();
        return output::print_json(&all);
    }
    if loaded.is_empty() {
        say!("No known contexts");
        return Ok(());
    }
    let selected = contexts.selected();
    let mut table = Table::new("Known Contexts", ["Name", "Description"]);
    for (name, context) in loaded {
        let mark = if selected.as_deref() == Some(&name) { "*" } else { "" };
        table.row([format!("{name}{mark}"), context.description]);
    }
    table.print();
    Ok(())
}

fn show(contexts: &Contexts, name: &str, context: &Context) -> Result<(), Failure> {
    let hidden = |secret: &str| if secret.is_empty() { String::new() } else { "******".to_owned() };
    let mut facts = Facts::titled(format!("NATS Configuration Context {name:?}"));
    facts.row_some("Description", &context.description);
    facts.row_some("Server URLs", &context.url);
    facts.row_some("Username", &context.user);
    facts.row_some("Password", &hidden(&context.password));
    facts.row_some("Token", &hidden(&context.token));
    facts.row_some("Credentials", &context.creds);
    facts.row_some("NKey", &context.nkey);
    facts.row_some("JWT", &hidden(&context.user_jwt));
    facts.row_some("Seed", &hidden(&context.user_seed));
    facts.row_some("Certificate", &context.cert);
    facts.row_some("Key", &context.key);
    facts.row_some("CA", &context.ca);
    facts.row_if(context.tls_first, "TLS First", "true");
    facts.row_some("JS API Prefix", &context.jetstream_api_prefix);
    facts.row_some("JS Event Prefix", &context.jetstream_event_prefix);
    facts.row_some("JS Domain", &context.jetstream_domain);
    facts.row_some("Inbox Prefix", &context.inbox_prefix);
    facts.row("Path", contexts.path(name)?.display().to_string());
    facts.row_if(contexts.selected().as_deref() == Some(name), "Selected", "true");
    facts.print();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{ "description": "d", "url": "nats://h:1", "user": "u", "tls_first": true,
        "windows_cert_store": "keep", "windows_ca_certs_match": null, "new_key": [1] }"#;

    fn scratch(name: &str) -> Contexts {
        let root = std::env::temp_dir().join(format!("headwater-context-{}-{name}", std::process::id()));
        if root.exists() {
            std::fs::remove_dir_all(&root).unwrap();
        }
        Contexts { root }
    }

    #[test]
    fn a_file_keeps_the_keys_that_are_not_ours() {
        let context: Context = serde_json::from_str(FILE).unwrap();
        assert_eq!(
            (context.url.as_str(), context.user.as_str(), context.tls_first),
            ("nats://h:1", "u", true)
        );
        let again: Value = serde_json::to_value(&context).unwrap();
        assert_eq!(again["windows_cert_store"], "keep");
        assert_eq!(again["new_key"], serde_json::json!([1]));
        assert!(again["windows_ca_certs_match"].is_null());
    }

    #[test]
    fn contexts_are_saved_selected_and_removed() {
        let contexts = scratch("cycle");
        let context = Context { url: "nats://a".into(), ..Context::default() };
        assert!(contexts.names().is_empty());
        contexts.save("a", &context).unwrap();
        contexts.save("b", &Context::default()).unwrap();
        assert_eq!(contexts.names(), ["a", "b"]);
        assert_eq!(contexts.load("a").unwrap(), context);
        assert_eq!(contexts.selected(), None);
        contexts.select("a").unwrap();
        contexts.select("b").unwrap();
        assert_eq!(contexts.selected().as_deref(), Some("b"));
        let previous = std::fs::read_to_string(contexts.root.join("previous-context.txt")).unwrap();
        assert_eq!(previous, "a");
        assert!(remove(&contexts, "b", true).is_err(), "the selected one stays");
        contexts.unselect().unwrap();
        remove(&contexts, "b", true).unwrap();
        assert_eq!(contexts.names(), ["a"]);
        std::fs::remove_dir_all(&contexts.root).unwrap();
    }

    #[test]
    fn a_name_cannot_leave_the_folder() {
        let contexts = scratch("names");
        for name in ["", "..", "../x", "a/b", ".hidden", "a\\b"] {
            assert!(contexts.path(name).is_err(), "{name:?}");
        }
        assert!(contexts.load("absent").is_err());
    }
}
