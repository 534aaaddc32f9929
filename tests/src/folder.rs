//! Owns folders that tests write into.

use std::path::PathBuf;

/// A folder of one's own, removed at the end.
pub struct Folder(pub PathBuf);

impl Folder {
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("cronvec-cli-{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    /// The path of a new file with this in it.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("a folder");
        path.to_str().expect("a folder").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
