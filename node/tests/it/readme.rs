//! What the README tells people to type works when it is typed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::process::{Broker, Place, ended};

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")
}

fn readme() -> String {
    fs::read_to_string(path()).unwrap()
}

/// A fenced block of the tour.
#[derive(Debug, PartialEq)]
enum Block {
    /// ```` ```sh tour ````
    Shell(String),
    /// ```` ```python tour ````
    Python(String),
}

/// The blocks of the tour, in order.
fn tour(text: &str) -> Vec<Block> {
    let block = |rest: &str| {
        let (language, rest) = rest.split_once('\n')?;
        let text = rest.split("\n```").next()?.to_owned();
        match language {
            "sh tour" => Some(Block::Shell(text)),
            "python tour" => Some(Block::Python(text)),
            _ => None,
        }
    };
    text.split("\n```").filter_map(block).collect()
}

#[test]
fn the_tour_works_as_it_is_written() {
    let blocks = tour(&readme());
    let (start, blocks) = blocks.split_first().unwrap();
    assert_eq!(
        *start,
        Block::Shell("heronry run".to_owned()),
        "the tour starts a broker first"
    );
    assert!(blocks.len() > 4, "{blocks:?}");
    let python = crate::interop::python();
    let place = Place::new();
    let bin = Path::new(env!("CARGO_BIN_EXE_heronry")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    // As it is written but for the address, which is the reader's own machine there and one of many tests' here.
    let command = |program: &str, flags: &[&str], text: &str| {
        let mut command = Command::new(program);
        command
            .args(flags)
            .arg(text.replace("127.0.0.1", &place.ip.to_string()));
        command.current_dir(place.directory.path()).env("PATH", &path);
        for key in ["ADMIN__LISTEN=:5280", "EDGE__C2S=:5222", "EDGE__C2S_TLS=:5223"] {
            let (key, port) = key.split_once('=').unwrap();
            command.env(format!("HERONRY_{key}"), format!("{}{port}", place.ip));
        }
        command
    };
    let shell = |text: &str| command("bash", &["-euo", "pipefail", "-c"], text);
    let broker = Broker::start(&mut shell("exec heronry run"));
    for block in blocks {
        let mut command = match block {
            Block::Shell(text) => shell(text),
            Block::Python(text) => command(&python, &["-c"], text),
        };
        let ended = ended(command.output().unwrap());
        assert_eq!(ended.code, Some(0), "{block:?}\n{}{}", ended.stdout, ended.stderr);
    }
    let status = ended(shell("heronry status --json").output().unwrap()).ok().stdout;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["stanzas_accepted"], 1, "the message from Python: {status}");
    let stopped = broker.end_with("INT", Duration::from_secs(10)).ok();
    assert!(stopped.stderr.contains("nobody vouches for"), "{stopped:?}");
    assert!(place.directory.path().join("heronry-data/admin.token").exists());
}

#[test]
fn every_command_in_the_readme_exists() {
    // `heronry user add|passwd JID` and the like, anywhere in the text.
    let text = readme();
    let mut commands: Vec<String> = Vec::new();
    for piece in text.split("heronry ").skip(1) {
        let words: Vec<_> = piece.split([' ', '`', '\n', ',']).take(2).collect();
        let known = ["run", "user", "status", "config"];
        if let [command, verbs] = words[..]
            && known.contains(&command)
        {
            let verbs = verbs.replace('\\', "");
            let is_verb = |verb: &&str| verb.chars().all(|c| c.is_ascii_lowercase()) && !verb.is_empty();
            match command {
                "user" | "config" => {
                    commands.extend(verbs.split('|').filter(is_verb).map(|verb| format!("{command} {verb}")));
                }
                _ => commands.push(command.to_owned()),
            }
        }
    }
    commands.sort_unstable();
    commands.dedup();
    assert!(commands.len() >= 8, "{commands:?}");
    for command in commands {
        let mut words: Vec<_> = command.split(' ').collect();
        words.push("--help");
        let ended = ended(crate::process::heronry(&words).output().unwrap());
        assert_eq!(ended.code, Some(0), "heronry {command}: {ended:?}");
    }
}

/// `make docs` writes it.
#[test]
fn the_table_of_extensions_is_what_the_program_speaks() {
    const BEGIN: &str = "<!-- extensions: written by `make docs` -->\n";
    const END: &str = "<!-- /extensions -->";
    let text = readme();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let mut table = String::from("\n| document | title | version |\n|---|---|---|\n");
    for spec in heronry_xmpp::xep::specs() {
        table.push_str(&format!("| {} | {} | {} |\n", spec.document, spec.title, spec.version));
    }
    let written = format!("{before}{BEGIN}{table}\n{END}{after}");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(path(), &written).unwrap();
    }
    assert!(
        readme() == written,
        "the README's table of extensions is not what the program says: run `make docs`"
    );
}

#[test]
fn the_table_of_exit_codes_is_the_programs() {
    let code = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/failure.rs")).unwrap();
    let documented: Vec<_> = code
        .lines()
        .filter_map(|line| line.strip_prefix("//! | "))
        .skip(1)
        .collect();
    let text = readme();
    for row in &documented {
        assert!(
            text.lines().any(|line| line.strip_prefix("| ") == Some(*row)),
            "not in the README: {row}"
        );
    }
    assert_eq!(documented.len(), 12);
}
