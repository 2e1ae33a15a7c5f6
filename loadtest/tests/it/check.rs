use std::fs;

use crate::loadtest;

const KEPT: &str = r#"
{"at":1,"by":"a@x/r","what":"sent","session":"s","to":"b@x","id":"m1","body":"one"}
{"at":2,"by":"b@x/r","what":"delivered","session":"t","from":"a@x/r","id":"m1","body":"one"}
{"at":3,"by":"a@x/r","what":"acknowledged","id":"m1"}
"#;
const LOST: &str = r#"
{"at":1,"by":"a@x/r","what":"sent","session":"s","to":"b@x","id":"m1","body":"one"}
{"at":2,"by":"a@x/r","what":"acknowledged","id":"m1"}
"#;

/// The exit code, standard output and standard error for histories.
fn check(histories: &[&str]) -> (Option<i32>, String, String) {
    let directory = std::env::temp_dir().join(format!("heronry-check-{}-{}", std::process::id(), histories.len()));
    fs::create_dir_all(&directory).expect("a directory");
    let mut arguments = vec!["check".to_owned()];
    for (number, history) in histories.iter().enumerate() {
        let path = directory.join(format!("{number}.jsonl"));
        fs::write(&path, history).expect("written");
        arguments.push(path.display().to_string());
    }
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let output = loadtest(&arguments);
    fs::remove_dir_all(&directory).expect("removed");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&format!("{}/", directory.display()), "");
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_history_that_keeps_the_promises_is_0_and_says_what_happened() {
    let said = "0.jsonl: 1 messages sent, 1 acknowledged, 1 delivered, 0 refused, 0 calls answered\n  \
                nothing lost, nothing invented, nothing twice, order kept, rows linearizable\n";
    assert_eq!(check(&[KEPT]), (Some(0), said.to_owned(), String::new()));
}

#[test]
fn a_history_that_does_not_is_1_and_says_which() {
    let (code, said, sentence) = check(&[KEPT, LOST]);
    assert_eq!(
        (code, sentence.as_str()),
        (Some(1), "heronry-loadtest: one promise was not kept\n")
    );
    assert!(
        said.ends_with("  message m1 of a@x/r to b@x was acknowledged, and neither delivered, stored nor refused\n"),
        "{said}"
    );
}

#[test]
fn what_is_no_history_is_1_with_its_line() {
    let (code, _, sentence) = check(&["\n{\"at\":1}\n", KEPT, KEPT]);
    assert_eq!(code, Some(1));
    assert!(
        sentence.starts_with("heronry-loadtest: 0.jsonl: line 2: "),
        "{sentence}"
    );
}
