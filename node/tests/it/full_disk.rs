//! A disk without space, at the start and while running: a small tmpfs in a mount namespace of its own, which needs no root.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use crate::{
    accounts::Accounts,
    process::{Broker, Ended, PATIENCE, Place, ended},
};

/// A namespace in which the data directory of a place is a tmpfs of `size`; gone when dropped.
pub(crate) struct SmallDisk {
    pub(crate) place: Place,
    keeper: Child,
}

impl SmallDisk {
    pub(crate) fn of(size: &str) -> Self {
        let place = Place::new();
        std::fs::create_dir(place.data()).unwrap();
        let keeper = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sleep", "infinity"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let disk = Self { place, keeper };
        disk.wait_for_namespace();
        disk.mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        disk
    }

    /// The keeper has its namespaces a moment after it has started.
    fn wait_for_namespace(&self) {
        let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
        let theirs = format!("/proc/{}/ns/mnt", self.keeper.id());
        let began = Instant::now();
        while std::fs::read_link(&theirs).unwrap() == own || !self.inside("true").status().unwrap().success() {
            assert!(
                began.elapsed() < PATIENCE,
                "no namespace: are user namespaces switched off?"
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn mount(&self, arguments: &[&str]) {
        let mounted = self
            .inside("mount")
            .args(arguments)
            .arg(self.place.data())
            .status()
            .unwrap();
        assert!(mounted.success(), "mount {arguments:?}");
    }

    fn grow(&self, size: &str) {
        self.mount(&["-o", &format!("remount,size={size}")]);
    }

    pub(crate) fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        let target = self.keeper.id().to_string();
        command
            .args(["--target", &target, "--user", "--mount", "--preserve-credentials", "--"])
            .arg(program);
        command.stdin(Stdio::null());
        command
    }

    /// A command of ours inside the namespace.
    fn command(&self, arguments: &[&str]) -> Command {
        let ours = self.place.command(arguments);
        let mut command = self.inside(ours.get_program());
        command.args(ours.get_args()).current_dir(self.place.directory.path());
        for (name, value) in ours.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        ended(self.command(arguments).output().unwrap())
    }

    fn directory(&self) -> &Path {
        self.place.directory.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

const SENTENCE: &str = "the disk of DIR/data is full: make room, or name another data directory with --data DIR";

#[test]
fn no_space_at_the_start_is_6() {
    let disk = SmallDisk::of("64k");
    let ended = disk.run(&["run"]);
    assert_eq!(
        (ended.code, ended.sentence(disk.directory()).as_str()),
        (Some(6), SENTENCE),
        "{ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_space_while_running_loses_nothing_that_was_acknowledged() {
    let disk = SmallDisk::of("24m");
    // Otherwise the store would keep all of it in memory and its logs.
    let small = [
        "--set=limits.storage.wal_bytes_max=1 MiB",
        "--set=limits.storage.write_buffer_bytes_max=1 MiB",
        "--set=limits.storage.disk_reserve_bytes=0",
    ];
    let start = |flags: &[&str]| {
        let mut command = disk.command(&[&["run"], flags].concat());
        Broker::start(command.env("HERONRY_ADMIN_TOKEN", "secret"))
    };
    let broker = start(&small);
    let mut accounts = Accounts::connect(disk.place.ip, "secret").await;
    let mut acknowledged = Vec::new();
    let mut refusal = None;
    for number in 0..20_000 {
        if number == 20 {
            // All that is left, but for a few pages.
            let data = disk.place.data();
            let fill = "head -c $(( $(stat -f -c %a $0) * 4096 - 65536 )) /dev/zero > $0/filler";
            assert!(
                disk.inside("sh")
                    .args(["-c", fill])
                    .arg(&data)
                    .status()
                    .unwrap()
                    .success()
            );
        }
        let jid = format!("u{number}@localhost");
        match accounts.add(&jid).await {
            Ok(()) => acknowledged.push(jid),
            Err(status) => {
                refusal = Some(status);
                break;
            }
        }
    }
    assert!(refusal.is_some(), "{} accounts fitted into nothing", acknowledged.len());
    assert!(acknowledged.len() >= 20, "{refusal:?}");
    // A lone node without its store can do nothing: it ends, and says why.
    let ended = broker.wait();
    assert_eq!(
        (ended.code, ended.sentence(disk.directory()).as_str()),
        (Some(6), SENTENCE),
        "{ended:?}"
    );

    assert!(
        disk.inside("rm")
            .arg(disk.place.data().join("filler"))
            .status()
            .unwrap()
            .success()
    );
    disk.grow("200m");
    let _broker = start(&[]);
    let listed = Accounts::connect(disk.place.ip, "secret").await.list().await;
    for jid in &acknowledged {
        assert!(listed.contains(jid), "{jid} was acknowledged and is gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_is_almost_full_refuses_what_writes_until_it_has_room() {
    let disk = SmallDisk::of("64m");
    let small = [
        "run",
        "--set=limits.storage.wal_bytes_max=1 MiB",
        "--set=limits.storage.write_buffer_bytes_max=1 MiB",
    ];
    let broker = Broker::start(disk.command(&small).env("HERONRY_ADMIN_TOKEN", "secret"));
    let mut accounts = Accounts::connect(disk.place.ip, "secret").await;
    accounts.add("before@localhost").await.unwrap();
    // A sixteenth of the disk is 4 MiB.
    let fill = "head -c $(( $(stat -f -c %a $0) * 4096 - 3145728 )) /dev/zero > $0/filler";
    let data = disk.place.data();
    let filled = disk.inside("sh").args(["-c", fill]).arg(&data).status().unwrap();
    assert!(filled.success());
    let refused = accounts.add("meanwhile@localhost").await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused:?}");
    let status = ended(
        disk.command(&["status"])
            .env("HERONRY_ADMIN_TOKEN", "secret")
            .output()
            .unwrap(),
    );
    assert!(
        status
            .stdout
            .contains("has less room than limits.storage.disk_reserve_bytes"),
        "{status:?}"
    );
    // What it has it still says.
    assert_eq!(accounts.list().await, ["before@localhost"]);
    assert!(disk.inside("rm").arg(data.join("filler")).status().unwrap().success());
    let until = Instant::now() + PATIENCE;
    while accounts.add("after@localhost").await.is_err() {
        assert!(Instant::now() < until, "it does not go on");
    }
    assert_eq!(broker.end_with("TERM", PATIENCE).code, Some(0));
}
