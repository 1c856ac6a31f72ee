//! Keys as files of mode 0600 beside the authority's other state, under a passphrase if there is one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use der::pem::LineEnding;
use zeroize::Zeroizing;

use super::software::SoftwareKey;
use super::{Custody, CustodyError, SigningKey, key_name, passphrase};
use crate::directory::Directory;

const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
const PLAIN: &str = "PRIVATE KEY";

/// One file a key, `key-<name>.pem`.
#[derive(Debug)]
pub(crate) struct FileCustody {
    directory: Directory,
    passphrase: Option<Passphrase>,
}

/// A secret that debug output does not show; wiped when dropped.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// Takes the bytes as they are.
    #[must_use]
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(elided)")
    }
}

impl FileCustody {
    pub(crate) fn new(directory: Directory, passphrase: Option<Passphrase>) -> Self {
        Self { directory, passphrase }
    }

    /// Keeps a key that was made elsewhere, as an older release left it.
    pub(crate) fn adopt(&self, pkcs8: &[u8]) -> Result<Option<Arc<dyn SigningKey>>, CustodyError> {
        let Some(key) = SoftwareKey::from_pkcs8(pkcs8) else { return Ok(None) };
        self.keep(&key, pkcs8)?;
        Ok(Some(Arc::new(key)))
    }

    /// Where the key of this name is kept.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(&file(name))
    }

    /// Names of the keys that have been here for so long, by the file system's word.
    pub(crate) fn older_than(&self, age: Duration) -> Result<Vec<String>, CustodyError> {
        let name = |file: String| Some(file.strip_prefix("key-")?.strip_suffix(".pem")?.to_owned());
        Ok(self.directory.older_than(age)?.into_iter().filter_map(name).collect())
    }

    fn keep(&self, key: &SoftwareKey, pkcs8: &[u8]) -> Result<(), CustodyError> {
        let (label, der) = match &self.passphrase {
            Some(Passphrase(secret)) => {
                let sealed = passphrase::encrypt(pkcs8, secret).ok_or(CustodyError::Generate)?;
                (ENCRYPTED, Zeroizing::new(sealed))
            }
            None => (PLAIN, Zeroizing::new(pkcs8.to_vec())),
        };
        let pem = der::pem::encode_string(label, LineEnding::LF, &der).map(Zeroizing::new);
        let pem = pem.map_err(|_| CustodyError::Generate)?;
        Ok(self.directory.create(&file(&key_name(key.public_key())), pem.as_bytes())?)
    }

    /// The key in a PEM text, decrypted if it must be.
    pub(crate) fn read(pem: &[u8], secret: Option<&Passphrase>, path: PathBuf) -> Result<SoftwareKey, CustodyError> {
        let sealed = match der::pem::decode_vec(pem) {
            Ok((ENCRYPTED, sealed)) => sealed,
            _ => return SoftwareKey::from_pem(pem).ok_or(CustodyError::Damaged(path)),
        };
        let Some(Passphrase(secret)) = secret else { return Err(CustodyError::PassphraseMissing(path)) };
        let opened = passphrase::decrypt(&sealed, secret).and_then(|plain| SoftwareKey::from_pkcs8(&plain));
        opened.ok_or(CustodyError::PassphraseWrong(path))
    }
}

fn file(name: &str) -> String {
    format!("key-{name}.pem")
}

impl Custody for FileCustody {
    fn generate(&self) -> Result<Arc<dyn SigningKey>, CustodyError> {
        let (key, pkcs8) = SoftwareKey::generate()?;
        self.keep(&key, &pkcs8)?;
        Ok(Arc::new(key))
    }

    fn find(&self, name: &str) -> Result<Option<Arc<dyn SigningKey>>, CustodyError> {
        let path = self.directory.join(&file(name));
        let Some(pem) = self.directory.read_secret(&file(name))? else { return Ok(None) };
        let key = Self::read(&pem, self.passphrase.as_ref(), path.clone())?;
        if key_name(key.public_key()) != name {
            return Err(CustodyError::Misnamed(path));
        }
        Ok(Some(Arc::new(key)))
    }

    fn destroy(&self, name: &str) -> Result<(), CustodyError> {
        Ok(self.directory.remove(&file(name))?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn custody(path: &std::path::Path, secret: Option<&str>) -> FileCustody {
        let passphrase = secret.map(|secret| Passphrase::new(Zeroizing::new(secret.into())));
        FileCustody::new(Directory::open(path).unwrap().0, passphrase)
    }

    #[test]
    fn a_key_is_found_by_the_name_of_its_public_half() {
        let dir = tempfile::tempdir().unwrap();
        let custody = custody(dir.path(), None);
        let made = custody.generate().unwrap();
        let name = key_name(made.public_key());
        let found = custody.find(&name).unwrap().unwrap();
        assert_eq!(found.public_key(), made.public_key());
        assert!(custody.find(&"0".repeat(40)).unwrap().is_none());
        let other = key_name(custody.generate().unwrap().public_key());
        fs::copy(dir.path().join(file(&other)), dir.path().join(file(&name))).unwrap();
        assert!(matches!(custody.find(&name), Err(CustodyError::Misnamed(_))));
        custody.destroy(&name).unwrap();
        custody.destroy(&name).unwrap();
        assert!(custody.find(&name).unwrap().is_none());
    }

    /// What a process killed between making a key and using it has left.
    #[test]
    fn old_keys_are_told_from_new_ones() {
        let dir = tempfile::tempdir().unwrap();
        let custody = custody(dir.path(), None);
        let [old, new] = [(); 2].map(|()| key_name(custody.generate().unwrap().public_key()));
        let path = dir.path().join(file(&old));
        let yesterday = std::time::SystemTime::now() - Duration::from_secs(86_400);
        fs::File::open(path).unwrap().set_modified(yesterday).unwrap();
        assert_eq!(custody.older_than(Duration::from_secs(3_600)).unwrap(), [old.as_str()]);
        assert!(custody.older_than(Duration::ZERO).unwrap().contains(&new));
    }

    #[test]
    fn a_passphrase_locks_the_file_and_is_asked_for_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let locked = custody(dir.path(), Some("open sesame"));
        let made = locked.generate().unwrap();
        let name = key_name(made.public_key());
        let text = fs::read_to_string(dir.path().join(file(&name))).unwrap();
        assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{text}");
        assert_eq!(locked.find(&name).unwrap().unwrap().public_key(), made.public_key());
        let error = custody(dir.path(), None).find(&name).unwrap_err().to_string();
        assert!(error.contains("--ca-passphrase-file") && error.contains(&name), "{error}");
        let error = custody(dir.path(), Some("guess")).find(&name).unwrap_err();
        assert!(matches!(error, CustodyError::PassphraseWrong(_)), "{error}");
        assert!(!format!("{locked:?} {made:?}").contains("sesame"));
    }
}
