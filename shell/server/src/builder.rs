//! Settings for an embedded server.

use std::path::PathBuf;

use hw_conf::Options;

use crate::start::{self, StartError};
use crate::{LogConfig, Server, Sink};

/// Collects settings; [`Builder::start`] starts the server.
#[derive(Clone, Debug)]
pub struct Builder {
    options: Options,
}

impl Default for Builder {
    fn default() -> Builder {
        let mut options = Options::default();
        options.server.listen.host = "127.0.0.1".to_owned();
        options.jetstream.enabled = true;
        Builder { options }
    }
}

impl Builder {
    /// Starts from complete options, as a configuration file or flags give them.
    pub fn from_options(options: Options) -> Builder {
        Builder { options }
    }

    /// Where clients connect; 127.0.0.1 by default.
    pub fn host(mut self, host: impl Into<String>) -> Builder {
        self.options.server.listen.host = host.into();
        self
    }

    /// The client port; 0 is any free one. 4222 by default.
    pub fn port(mut self, port: u16) -> Builder {
        self.options.server.listen.port = port;
        self
    }

    /// The server's name; a random id by default.
    pub fn name(mut self, name: impl Into<String>) -> Builder {
        self.options.server.name = Some(name.into());
        self
    }

    /// Whether streams are served; they are by default.
    pub fn jetstream(mut self, enabled: bool) -> Builder {
        self.options.jetstream.enabled = enabled;
        self
    }

    /// The folder for streams; a folder `jetstream` is made in it. A temporary one by default.
    pub fn store_dir(mut self, folder: impl Into<PathBuf>) -> Builder {
        self.options.jetstream.store_dir = Some(folder.into());
        self
    }

    /// The monitoring port; 0 is any free one. None by default.
    pub fn http_port(mut self, port: u16) -> Builder {
        self.options.monitor.http = Some(hw_conf::Listen { host: String::new(), port });
        self
    }

    /// Changes any other setting.
    pub fn with(mut self, change: impl FnOnce(&mut Options)) -> Builder {
        change(&mut self.options);
        self
    }

    /// Starts the server; when this returns, clients can connect.
    pub fn start(self) -> Result<Server, StartError> {
        start::start(self.options, None)
    }

    /// Starts the server with a log of its own (the program's `tracing` subscriber otherwise).
    pub fn start_with_log(self, log: &LogConfig) -> Result<Server, StartError> {
        let sink = Sink::open(log).map_err(|error| StartError::Log { error: error.to_string() })?;
        sink.install(log);
        start::start(self.options, Some(sink))
    }
}
