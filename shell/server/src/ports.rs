//! The ports file: which ports this process listens on, for tools that started it with random ones.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Where each service can be reached, as URLs. Services that are off have no entry.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ports {
    /// Client connections.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nats: Vec<String>,
    /// The monitoring port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub monitoring: Vec<String>,
    /// Routes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cluster: Vec<String>,
    /// Websocket clients.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub websocket: Vec<String>,
    /// Leaf nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub leafnodes: Vec<String>,
}

impl Ports {
    /// Writes `<executable>_<pid>.ports` into `folder`; says which file it was. Readers never see half of it.
    pub fn write(&self, folder: &Path) -> io::Result<PathBuf> {
        let program = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
        let program = program
            .file_name()
            .map_or_else(|| "headwater".into(), |name| name.to_string_lossy().into_owned());
        let path = folder.join(format!("{program}_{}.ports", std::process::id()));
        let partial = path.with_extension("ports.tmp");
        std::fs::write(&partial, serde_json::to_vec(self)?)?;
        std::fs::rename(&partial, &path)?;
        Ok(path)
    }
}
