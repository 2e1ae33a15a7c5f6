//! A test in namespaces of its own: network, mounts, processes. It may cut wires, fill disks and freeze them; all of that is gone with it.
//!
//! Root gets them as it is, others by a user namespace. Where neither is allowed, the test says that it was skipped.

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::process::Place;

/// Set for the test that runs inside.
const INSIDE: &str = "HERONRY_TEST_INSIDE";

/// Whether this is the inside, where the test goes on. Outside, the test called `name` of `module` is run once more, inside, and must pass
/// there; unless that is not possible on this machine, which is said.
#[track_caller]
pub(crate) fn is_inside(module: &str, name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        run("ip link set lo up");
        return true;
    }
    let Some(mut inside) = namespaces() else {
        eprintln!("SKIPPED {name}: namespaces for networks and mounts are not allowed here");
        return false;
    };
    // The test's name does not begin with its crate's.
    let module = module.split_once("::").unwrap().1;
    let test = inside
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::{name}"), "--nocapture"])
        .env(INSIDE, "1");
    assert!(test.status().unwrap().success(), "failed inside: see above");
    false
}

/// What starts a program in namespaces of its own, if that is allowed.
fn namespaces() -> Option<Command> {
    let command = |user: &[&str]| {
        let mut command = Command::new("unshare");
        command
            .args(user)
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command
    };
    let ways: [&[&str]; 2] = [&[], &["--user", "--map-root-user"]];
    let works = |user: &&&[&str]| {
        let tried = command(user).arg("true").stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    ways.iter().find(works).map(|user| command(user))
}

/// Runs a line of the shell that must succeed.
#[track_caller]
pub(crate) fn run(line: &str) {
    assert!(works(line), "{line}");
}

/// Runs a line of the shell.
pub(crate) fn works(line: &str) -> bool {
    let status = Command::new("sh").args(["-ec", line]).stdin(Stdio::null()).status();
    status.unwrap().success()
}

/// Hosts on one switch, each with a network of its own. The test is on the switch, too, and reaches all of them.
pub(crate) struct Network;

impl Network {
    /// Puts up hosts; `None`, which is said, without nftables.
    pub(crate) fn of(hosts: usize) -> Option<Self> {
        if !works("nft list tables >/dev/null") {
            eprintln!("SKIPPED: there is no nftables here (tools/setup.sh installs it)");
            return None;
        }
        // Where `ip netns` keeps names. Nothing of the machine's own is touched: these are mounts of ours.
        run("mount -t tmpfs tmpfs /run; ip link add name switch type bridge");
        run("ip addr add 10.77.0.254/24 dev switch; ip link set switch up");
        for host in 0..hosts {
            let ip = Self::ip(host);
            run(&format!(
                "ip netns add h{host}; ip link add name v{host} type veth peer name eth0 netns h{host}
                 ip link set v{host} master switch up; ip -n h{host} link set lo up
                 ip -n h{host} addr add {ip}/24 dev eth0; ip -n h{host} link set eth0 up
                 nsenter --net=/run/netns/h{host} nft 'add table inet cuts
                   add chain inet cuts input {{ type filter hook input priority 0; }}'"
            ));
        }
        Some(Self)
    }

    fn ip(host: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, u8::try_from(host).unwrap() + 1)
    }

    /// A place on a host.
    pub(crate) fn place(&self, host: usize) -> Place {
        let mut place = Place::at(Self::ip(host)).with(&["--set=peer.insecure=true"]);
        place.through = vec!["nsenter".to_owned(), format!("--net=/run/netns/h{host}")];
        place
    }

    /// From now on nothing that one host sends reaches another.
    pub(crate) fn cut(&self, from: usize, to: usize) {
        let from = Self::ip(from);
        run(&format!(
            "nsenter --net=/run/netns/h{to} nft add rule inet cuts input ip saddr {from} drop"
        ));
    }

    /// Everything reaches a host again.
    pub(crate) fn heal(&self, host: usize) {
        run(&format!(
            "nsenter --net=/run/netns/h{host} nft flush chain inet cuts input"
        ));
    }
}

/// A file system of its own at a data directory; thawed and taken away when dropped.
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// A small one in memory.
    pub(crate) fn small(place: &Place, size: &str) -> Self {
        let disk = Self::at(place);
        run(&format!("mount -t tmpfs -o size={size} tmpfs {}", disk.0.display()));
        disk
    }

    /// One in a file, which can be frozen; `None`, which is said, where that is not allowed.
    pub(crate) fn in_file(place: &Place) -> Option<Self> {
        let disk = Self::at(place);
        let (file, at) = (place.directory.path().join("disk"), disk.0.display());
        let file = file.display();
        if works(&format!(
            "truncate -s 256M {file}; mkfs.ext4 -q {file}; mount -o loop {file} {at}"
        )) {
            return Some(disk);
        }
        eprintln!("SKIPPED: a file cannot be mounted as a disk here");
        None
    }

    fn at(place: &Place) -> Self {
        std::fs::create_dir(place.data()).unwrap();
        Self(place.data())
    }

    /// All that is left is taken, but for a few pages.
    pub(crate) fn fill(&self) {
        let at = self.0.display();
        run(&format!(
            "head -c $(( $(stat -f -c %a {at}) * 4096 - 65536 )) /dev/zero > {at}/filler"
        ));
    }

    /// There is room again.
    pub(crate) fn make_room(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }

    /// From now on nothing that is written ends, and nothing fails.
    pub(crate) fn freeze(&self) {
        run(&format!("fsfreeze --freeze {}", self.0.display()));
    }

    /// Everything goes on.
    pub(crate) fn thaw(&self) {
        run(&format!("fsfreeze --unfreeze {}", self.0.display()));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let at = self.0.display();
        works(&format!(
            "fsfreeze --unfreeze {at} 2>/dev/null || true; umount --lazy {at} 2>/dev/null || true"
        ));
    }
}
