//! What a page tells people to type works when it is typed: its blocks are run in their order, in an empty directory.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::process::{Broker, Ended, Place, ended};

/// A fenced block whose language is followed by `tour`, and perhaps by the name of a file.
#[derive(Debug, PartialEq)]
enum Block {
    /// ```` ```sh tour ````: typed into a shell.
    Shell(String),
    /// ```` ```python tour ````: typed into Python.
    Python(String),
    /// ```` ```js tour lamp.mjs ````: put into that file.
    File(String, String),
}

/// What became of a page's commands.
pub(crate) struct Followed {
    /// Where they were typed.
    pub(crate) place: Place,
    /// The broker's status at the end, as JSON.
    pub(crate) status: String,
    /// The broker, when it had been told to stop.
    pub(crate) stopped: Ended,
}

/// The blocks of a page, in order.
fn blocks(text: &str) -> Vec<Block> {
    let block = |rest: &str| {
        let (language, rest) = rest.split_once('\n')?;
        let text = rest.split("\n```").next()?.to_owned();
        match language.split(' ').collect::<Vec<_>>()[..] {
            ["sh", "tour"] => Some(Block::Shell(text)),
            ["python", "tour"] => Some(Block::Python(text)),
            [_, "tour", file] => Some(Block::File(file.to_owned(), text)),
            _ => None,
        }
    };
    text.split("\n```").filter_map(block).collect()
}

/// Does what a page says. Its first block starts the broker.
pub(crate) fn follow(page: &Path) -> Followed {
    let blocks = blocks(&fs::read_to_string(page).unwrap());
    let (start, blocks) = blocks.split_first().unwrap();
    assert_eq!(
        *start,
        Block::Shell("heronry run".to_owned()),
        "a tour starts a broker first"
    );
    assert!(blocks.len() > 3, "{blocks:?}");
    let place = Place::new();
    let directory = place.directory.path();
    let python = PathBuf::from(crate::interop::python());
    symlink(crate::interop::modules(), directory.join("node_modules")).unwrap();
    let path = format!(
        "{}:{}:{}",
        Path::new(env!("CARGO_BIN_EXE_heronry")).parent().unwrap().display(),
        python.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    // As it is written but for the address, which is the reader's own machine there and one of many tests' here.
    let here = |text: &str| text.replace("127.0.0.1", &place.ip.to_string());
    let command = |program: &Path, flags: &[&str], text: &str| {
        let mut command = Command::new(program);
        command.args(flags).arg(here(text));
        command.current_dir(directory).env("PATH", &path);
        for key in ["ADMIN__LISTEN=:5280", "EDGE__C2S=:5222", "EDGE__C2S_TLS=:5223"] {
            let (key, port) = key.split_once('=').unwrap();
            command.env(format!("HERONRY_{key}"), format!("{}{port}", place.ip));
        }
        command
    };
    let shell = |text: &str| command(Path::new("bash"), &["-euo", "pipefail", "-c"], text);
    let broker = Broker::start(&mut shell("exec heronry run"));
    for block in blocks {
        let mut command = match block {
            Block::Shell(text) => shell(text),
            Block::Python(text) => command(&python, &["-c"], text),
            Block::File(name, text) => {
                fs::write(directory.join(name), here(text)).unwrap();
                continue;
            }
        };
        let ended = ended(command.output().unwrap());
        assert_eq!(ended.code, Some(0), "{block:?}\n{}{}", ended.stdout, ended.stderr);
    }
    let status = ended(shell("heronry status --json").output().unwrap()).ok().stdout;
    let stopped = broker.end_with("INT", Duration::from_secs(10)).ok();
    Followed { place, status, stopped }
}

fn page(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guides").join(name)
}

#[test]
fn devices_in_python() {
    follow(&page("slixmpp.md"));
}

#[test]
fn devices_in_javascript() {
    follow(&page("xmpp-js.md"));
}
