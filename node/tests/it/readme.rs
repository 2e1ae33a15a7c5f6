//! What the README tells people to type works when it is typed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{guide, process::ended};

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")
}

fn readme() -> String {
    fs::read_to_string(path()).unwrap()
}

#[test]
fn the_tour_works_as_it_is_written() {
    let followed = guide::follow(&path());
    let status: serde_json::Value = serde_json::from_str(&followed.status).unwrap();
    assert_eq!(status["stanzas_accepted"], 1, "the message from Python: {status}");
    let stopped = &followed.stopped;
    assert!(stopped.stderr.contains("nobody vouches for"), "{stopped:?}");
    assert!(
        followed
            .place
            .directory
            .path()
            .join("heronry-data/admin.token")
            .exists()
    );
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
