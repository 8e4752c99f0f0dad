//! The rules between a stream and the streams that it mirrors or sources.

use std::collections::BTreeSet;

use hw_stream::StreamConfig;
use hw_stream::config::StreamSource;
use hw_stream::stream::ConfigError;
use hw_subject::overlaps;

use crate::Meta;

fn coded(err_code: u16) -> ConfigError {
    ConfigError::Rule { err_code, text: String::new() }
}

/// The origins in the same account: of others nothing is known here.
fn origins(config: &StreamConfig) -> impl Iterator<Item = &StreamSource> {
    config.mirror.iter().chain(&config.sources).filter(|origin| origin.external.is_none())
}

/// The prefixes under which origins elsewhere deliver.
fn prefixes(config: &StreamConfig) -> impl Iterator<Item = &str> {
    let external = config.mirror.iter().chain(&config.sources).filter_map(|origin| origin.external.as_ref());
    external.map(|external| external.deliver.as_str()).filter(|prefix| !prefix.is_empty())
}

impl Meta {
    /// Checks a configuration against the account's other streams and takes over what a mirror has from its origin.
    pub fn check_origins(
        &self,
        account: &str,
        config: &mut StreamConfig,
        pedantic: bool,
    ) -> Result<(), ConfigError> {
        for origin in origins(config) {
            let Some(origin) = self.stream(account, &origin.name) else { continue };
            let (own, theirs) = (config.max_msg_size, origin.config.max_msg_size);
            if own > 0 && theirs > own {
                return Err(coded(if config.mirror.is_some() { 10030 } else { 10046 }));
            }
            for (prefix, subject) in
                prefixes(config).flat_map(|p| origin.config.subjects.iter().map(move |s| (p, s)))
            {
                if overlaps(subject.as_bytes(), format!("{prefix}.{subject}").as_bytes()) {
                    let (prefix, subject) = (prefix.to_owned(), subject.clone());
                    return Err(ConfigError::ExternalPrefix { err_code: 10022, prefix, subject });
                }
            }
        }
        if self.reaches(account, config) {
            return Err(ConfigError::Invalid("detected cycle".to_owned()));
        }
        let mirrored = config.mirror.as_ref().filter(|mirrored| mirrored.external.is_none());
        let Some(mirrored) = mirrored else { return Ok(()) };
        let Some(origin) = self.stream(account, &mirrored.name) else { return Ok(()) };
        let direct = origin.config.allow_direct;
        if pedantic && direct != config.mirror_direct {
            let text = match direct {
                true => "origin stream has direct get set, mirror has it disabled",
                false => "origin stream has direct get disabled, mirror has it set",
            };
            return Err(ConfigError::Pedantic(text.to_owned()));
        }
        config.mirror_direct = direct;
        Ok(())
    }

    /// Whether the streams that feed this one are fed by it.
    fn reaches(&self, account: &str, config: &StreamConfig) -> bool {
        let mut open: Vec<&str> = origins(config).map(|origin| origin.name.as_str()).collect();
        let mut seen = BTreeSet::new();
        while let Some(name) = open.pop() {
            if name == config.name {
                return true;
            }
            if seen.insert(name)
                && let Some(asset) = self.stream(account, name)
            {
                open.extend(origins(&asset.config).map(|origin| origin.name.as_str()));
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MetaCommand;

    fn parse(config: &str) -> StreamConfig {
        serde_json::from_str(config).expect(config)
    }

    #[test]
    fn rules_between_streams() {
        let mut meta = Meta::default();
        for config in [
            r#"{"name":"O","subjects":["o"],"max_msg_size":1000,"allow_direct":true}"#,
            r#"{"name":"A","sources":[{"name":"B"}]}"#,
            r#"{"name":"C","mirror":{"name":"A"}}"#,
        ] {
            let (config, account) = (Box::new(parse(config)), "$G".to_owned());
            meta.apply(MetaCommand::Create { ts: 1, account, config, max_streams: -1, peers: Vec::new() });
        }
        let code = |err_code| Err(ConfigError::Rule { err_code, text: String::new() });
        let cycle = || Err(ConfigError::Invalid("detected cycle".to_owned()));
        for (config, pedantic, expected) in [
            (r#"{"name":"M","mirror":{"name":"O"},"max_msg_size":10}"#, false, code(10030)),
            (r#"{"name":"M","sources":[{"name":"O"}],"max_msg_size":10}"#, false, code(10046)),
            (r#"{"name":"M","mirror":{"name":"O"},"max_msg_size":1000}"#, false, Ok(true)),
            (r#"{"name":"M","mirror":{"name":"O"},"max_msg_size":-1}"#, false, Ok(true)),
            (r#"{"name":"M","mirror":{"name":"C"},"mirror_direct":true}"#, false, Ok(false)),
            (r#"{"name":"M","mirror":{"name":"none"},"mirror_direct":true}"#, false, Ok(true)),
            (
                r#"{"name":"M","mirror":{"name":"O"}}"#,
                true,
                Err(ConfigError::Pedantic(
                    "origin stream has direct get set, mirror has it disabled".to_owned(),
                )),
            ),
            (r#"{"name":"B","sources":[{"name":"A"}]}"#, false, cycle()),
            (r#"{"name":"B","sources":[{"name":"O"},{"name":"C"}]}"#, false, cycle()),
            (r#"{"name":"B","sources":[{"name":"O"}]}"#, false, Ok(false)),
        ] {
            let mut checked = parse(config);
            let came = meta.check_origins("$G", &mut checked, pedantic).map(|()| checked.mirror_direct);
            assert_eq!(came, expected, "{config}");
            let mut elsewhere = parse(config);
            assert_eq!(meta.check_origins("other", &mut elsewhere, pedantic), Ok(()), "{config}");
        }
    }
}
