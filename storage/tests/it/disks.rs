//! Disks that are small, that hang, and whose power is cut. They are mounted, so tests that have one must be root.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// An ext4 in a file, mounted; unmounted when dropped.
pub(crate) struct Disk {
    _directory: tempfile::TempDir,
    image: PathBuf,
    pub(crate) mounted: PathBuf,
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self::mount(|image| {
            std::fs::File::create(image).unwrap().set_len(96 << 20).unwrap();
            run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image));
        })
    }

    /// What is left of this disk when the power is cut now.
    pub(crate) fn cut(&self) -> Self {
        Self::mount(|image| {
            std::fs::copy(&self.image, image).unwrap();
        })
    }

    /// Every write hangs until what is returned is dropped.
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        run(Command::new("fsfreeze").arg("-f").arg(&self.mounted));
        Frozen(&self.mounted)
    }

    fn mount(make_image: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (image, mounted) = (directory.path().join("image"), directory.path().join("mounted"));
        make_image(&image);
        std::fs::create_dir(&mounted).unwrap();
        // Written back only when told to, or after an hour.
        run(Command::new("mount")
            .args(["-o", "loop,commit=3600"])
            .arg(&image)
            .arg(&mounted));
        Self {
            _directory: directory,
            image,
            mounted,
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.mounted).status();
    }
}

pub(crate) struct Frozen<'a>(&'a Path);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(self.0).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A tmpfs of this size, unmounted when dropped.
pub(crate) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    pub(crate) fn mount(size: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let disk = Self(directory);
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(disk.path()));
        disk
    }

    pub(crate) fn grow(&self, size: &str) {
        run(Command::new("mount")
            .args(["-o", &format!("remount,size={size}")])
            .arg(self.path()));
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
