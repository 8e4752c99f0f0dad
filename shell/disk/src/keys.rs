//! The key of a store: read with what is configured, made for a store that has none, wrapped anew when the key changes.
//!
//! Nothing else in the folder is touched before the key has been found to be right. docs/format.md, "Encryption".

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use hw_kit::ShardId;
use hw_store::{
    Cipher, Converted, DiskError, Keys, KeysError, SESSION_SALT_BYTES, StoreKey, Vault, WRAP_SALT_BYTES,
    convert, is_anything_sealed,
};

use crate::folder::Folder;
use crate::lock::StoreDir;

const KEYS_NAME: &str = "keys";
const TEMP_NAME: &str = "keys.tmp";

/// What is configured.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyOptions<'a> {
    /// The key; None: no encryption.
    pub key: Option<&'a str>,
    /// The key before this one, which may still be the one in use.
    pub previous: Option<&'a str>,
    /// What new files are sealed with.
    pub cipher: Option<Cipher>,
}

/// Why a store's key cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It is sealed and no key is configured.
    #[error("the store {0} is encrypted, and no key is configured", .path.display())]
    NoKey {
        /// The store's folder.
        path: PathBuf,
    },
    /// The key does not open it.
    #[error("the store {0}: {error}", .path.display())]
    Keys {
        /// The store's folder.
        path: PathBuf,
        /// What is wrong.
        error: KeysError,
    },
    /// There are sealed files and no file with their key.
    #[error("the store {0} is encrypted, but its file keys is missing: put back a copy of it", .path.display())]
    Missing {
        /// The store's folder.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("the store {0}: {error}", .path.display())]
    Io {
        /// The store's folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A segment cannot be written anew.
    #[error("the store {0}: {error}", .path.display())]
    Disk {
        /// The store's folder.
        path: PathBuf,
        /// What the disk said.
        error: DiskError,
    },
}

/// A store whose key is known, or that needs none.
#[derive(Debug, Default)]
pub struct Unlocked {
    keys: Option<Keys>,
    /// The key was wrapped anew: the previous one is not needed any more.
    pub has_rotated: bool,
    /// What was sealed now, where the store was not, or with another cipher; None if there was nothing to do.
    pub converted: Option<Converted>,
}

impl Unlocked {
    /// What seals and opens the files of one shard.
    pub fn vault(&self, shard: ShardId) -> io::Result<Vault> {
        let Some(Keys { store, cipher, is_whole }) = &self.keys else { return Ok(Vault::default()) };
        let salt: [u8; SESSION_SALT_BYTES] = random()?;
        Ok(Vault::new(store.clone(), shard, *cipher, *is_whole, salt))
    }

    /// What new files are sealed with.
    pub fn cipher(&self) -> Option<Cipher> {
        self.keys.as_ref().map(|keys| keys.cipher)
    }

    /// Whether files are left from before, which go while the store is used.
    pub fn is_changing(&self) -> bool {
        self.keys.as_ref().is_some_and(|keys| !keys.is_whole)
    }
}

/// Reads the key of a store without changing anything: with either of the keys. None: it is sealed and neither is given.
pub fn look_in(store: &StoreDir, options: &KeyOptions<'_>) -> Result<Option<Unlocked>, KeyError> {
    let path = store.path();
    let Some(file) = read_keys(path)? else { return Ok(Some(Unlocked::default())) };
    if options.key.is_none() && options.previous.is_none() {
        return Ok(None);
    }
    let (keys, _) = open_keys(path, &file, options)?;
    Ok(Some(Unlocked { keys: Some(keys), ..Unlocked::default() }))
}

/// Makes a store ready to be used as it is configured. `begun` is told when encryption is turned on or the cipher changes.
pub fn unlock(
    store: &StoreDir,
    options: &KeyOptions<'_>,
    begun: &mut dyn FnMut(Cipher),
) -> Result<Unlocked, KeyError> {
    let path = store.path();
    let io = |error| KeyError::Io { path: path.to_owned(), error };
    let disk = |error| KeyError::Disk { path: path.to_owned(), error };
    let file = read_keys(path)?;
    let shards = shards(path).map_err(io)?;
    let Some(key) = options.key else {
        return match file {
            Some(_) => Err(KeyError::NoKey { path: path.to_owned() }),
            None => Ok(Unlocked::default()),
        };
    };
    let (mut keys, has_rotated) = match &file {
        Some(file) => open_keys(path, file, options)?,
        None => {
            if is_sealed(store, &shards).map_err(disk)? {
                return Err(KeyError::Missing { path: path.to_owned() });
            }
            let store = StoreKey::new(random().map_err(io)?);
            let cipher = options.cipher.unwrap_or(Cipher::Chacha);
            (Keys { store, cipher, is_whole: shards.is_empty() }, false)
        }
    };
    let wanted = options.cipher.unwrap_or(Cipher::Chacha);
    let is_other = keys.cipher != wanted;
    if is_other {
        (keys.cipher, keys.is_whole) = (wanted, false);
    }
    if file.is_none() || is_other || has_rotated {
        write_keys(path, &keys, key).map_err(io)?;
    }
    let mut unlocked = Unlocked { keys: Some(keys), has_rotated, converted: None };
    if unlocked.is_changing() {
        if file.is_none() || is_other {
            begun(wanted);
        }
        let converted = convert_all(store, &shards, &unlocked)?;
        if converted.is_whole()
            && let Some(keys) = &mut unlocked.keys
        {
            keys.is_whole = true;
            write_keys(path, keys, key).map_err(io)?;
        }
        unlocked.converted = Some(converted);
    }
    Ok(unlocked)
}

/// Opens the file with the key or the one before it; whether it was the latter.
fn open_keys(path: &Path, file: &[u8], options: &KeyOptions<'_>) -> Result<(Keys, bool), KeyError> {
    let mut wrong = KeysError::WrongKey;
    let known = [(options.key, false), (options.previous, true)];
    for (key, is_previous) in known.into_iter().filter_map(|(key, which)| Some((key?, which))) {
        match Keys::unwrap(file, key.as_bytes()) {
            Ok(keys) => return Ok((keys, is_previous)),
            Err(error) => wrong = error,
        }
    }
    Err(KeyError::Keys { path: path.to_owned(), error: wrong })
}

fn convert_all(store: &StoreDir, shards: &[ShardId], unlocked: &Unlocked) -> Result<Converted, KeyError> {
    let mut all = Converted::default();
    for &shard in shards {
        let path = store.path().to_owned();
        let vault = unlocked.vault(shard).map_err(|error| KeyError::Io { path: path.clone(), error })?;
        let mut folder = Folder::new(store.shard_path(shard));
        let one =
            convert(&vault, &mut |op| folder.run(op)).map_err(|error| KeyError::Disk { path, error })?;
        all.segments += one.segments;
        all.waiting += one.waiting;
        all.damaged.extend(one.damaged);
    }
    Ok(all)
}

fn is_sealed(store: &StoreDir, shards: &[ShardId]) -> Result<bool, DiskError> {
    for &shard in shards {
        let mut folder = Folder::new(store.shard_path(shard));
        if is_anything_sealed(&mut |op| folder.run(op))? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn shards(path: &Path) -> io::Result<Vec<ShardId>> {
    let mut shards = Vec::new();
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("shard-")?.parse().ok());
        shards.extend(number.map(ShardId));
    }
    shards.sort_unstable();
    Ok(shards)
}

fn read_keys(path: &Path) -> Result<Option<Vec<u8>>, KeyError> {
    match fs::read(path.join(KEYS_NAME)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(KeyError::Io { path: path.to_owned(), error }),
    }
}

/// Replaces the file: at every moment there is a whole one.
fn write_keys(path: &Path, keys: &Keys, configured: &str) -> io::Result<()> {
    let salt: [u8; WRAP_SALT_BYTES] = random()?;
    let temp = path.join(TEMP_NAME);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temp)?;
    file.write_all(&keys.wrap(configured.as_bytes(), salt))?;
    file.sync_all()?;
    fs::rename(&temp, path.join(KEYS_NAME))?;
    File::open(path)?.sync_all()
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random numbers"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::tests::scratch;

    const KEY: KeyOptions<'static> =
        KeyOptions { key: Some("a key"), previous: None, cipher: Some(Cipher::Aes) };
    const NONE: KeyOptions<'static> = KeyOptions { key: None, previous: None, cipher: None };

    fn open(store: &StoreDir, options: &KeyOptions<'_>) -> Result<Unlocked, String> {
        unlock(store, options, &mut |_| ()).map_err(|error| error.to_string())
    }

    fn bytes(path: &Path) -> Vec<u8> {
        fs::read(path.join(KEYS_NAME)).unwrap()
    }

    /// A shard with a log and nothing else.
    fn make_shard(store: &StoreDir, unlocked: &Unlocked) {
        let vault = unlocked.vault(ShardId(0)).unwrap();
        let options = hw_store::StorageOptions { vault, ..hw_store::StorageOptions::new(ShardId(0), 1) };
        let mut folder = Folder::new(store.shard_path(ShardId(0)));
        hw_store::recover(options, &mut |op| folder.run(op), &mut |_| ()).unwrap();
    }

    #[test]
    fn a_key_is_made_once_and_wrapped_anew_for_another() {
        let path = scratch("keys");
        let store = StoreDir::open(&path).unwrap();
        assert!(open(&store, &NONE).unwrap().cipher().is_none() && !path.join(KEYS_NAME).exists());
        let made = open(&store, &KEY).unwrap();
        assert_eq!((made.cipher(), made.is_changing(), made.has_rotated), (Some(Cipher::Aes), false, false));
        make_shard(&store, &made);
        let before = bytes(&path);
        assert!(!open(&store, &KEY).unwrap().has_rotated);
        let wrong = "the key is not the one that the store was encrypted with";
        for options in [
            KeyOptions { key: Some("A key"), ..KEY },
            KeyOptions { key: Some("new"), previous: Some("A key"), ..KEY },
        ] {
            let error = open(&store, &options).unwrap_err();
            assert!(error.contains(wrong) && error.contains(&*path.to_string_lossy()), "{error}");
        }
        let error = open(&store, &NONE).unwrap_err();
        assert!(error.contains("is encrypted, and no key is configured"), "{error}");
        assert_eq!(bytes(&path), before, "nothing was changed");
        let next = KeyOptions { key: Some("new"), previous: Some("a key"), ..KEY };
        assert!(open(&store, &next).unwrap().has_rotated);
        assert!(!open(&store, &next).unwrap().has_rotated, "once");
        assert!(open(&store, &KEY).unwrap_err().contains(wrong));
        let last = open(&store, &KeyOptions { key: Some("new"), ..KEY }).unwrap();
        make_shard(&store, &last);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_lost_or_damaged_file_is_named_and_no_other_one_is_made() {
        let path = scratch("lost-keys");
        let store = StoreDir::open(&path).unwrap();
        make_shard(&store, &open(&store, &KEY).unwrap());
        let whole = bytes(&path);
        fs::remove_file(path.join(KEYS_NAME)).unwrap();
        let error = open(&store, &KEY).unwrap_err();
        assert!(error.contains("its file keys is missing: put back a copy of it"), "{error}");
        assert!(!path.join(KEYS_NAME).exists());
        fs::write(path.join(KEYS_NAME), &whole[..50]).unwrap();
        let error = open(&store, &KEY).unwrap_err();
        assert!(error.contains("the file keys is damaged: put back a copy of it"), "{error}");
        assert_eq!(bytes(&path), &whole[..50]);
        fs::write(path.join(KEYS_NAME), &whole).unwrap();
        make_shard(&store, &open(&store, &KEY).unwrap());
        // The key of another store, wrapped with the same configured one, is refused by the log.
        let other = scratch("other-keys");
        open(&StoreDir::open(&other).unwrap(), &KEY).unwrap();
        fs::write(path.join(KEYS_NAME), bytes(&other)).unwrap();
        let vault = open(&store, &KEY).unwrap().vault(ShardId(0)).unwrap();
        let options = hw_store::StorageOptions { vault, ..hw_store::StorageOptions::new(ShardId(0), 1) };
        let mut folder = Folder::new(store.shard_path(ShardId(0)));
        let refused = hw_store::recover(options, &mut |op| folder.run(op), &mut |_| ()).unwrap_err();
        assert!(refused.to_string().contains("does not open with the store's key"), "{refused}");
        fs::remove_dir_all(path).unwrap();
        fs::remove_dir_all(other).unwrap();
    }

    #[test]
    fn a_store_that_is_not_encrypted_becomes_so_with_its_log() {
        let path = scratch("becomes");
        let store = StoreDir::open(&path).unwrap();
        make_shard(&store, &Unlocked::default());
        let mut begun = Vec::new();
        let first = unlock(&store, &KEY, &mut |cipher| begun.push(cipher)).unwrap();
        assert_eq!((begun, first.is_changing()), (vec![Cipher::Aes], true));
        let waiting = first.converted.as_ref().map(|converted| converted.waiting);
        assert_eq!(waiting, Some(1), "the log's file");
        make_shard(&store, &first);
        // The file with the log that was not sealed is still there: a checkpoint takes it away.
        assert!(open(&store, &KEY).unwrap().is_changing());
        fs::remove_dir_all(path).unwrap();
    }
}
