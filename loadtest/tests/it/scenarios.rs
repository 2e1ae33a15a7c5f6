use serde_json::Value;

use crate::{loadtest, report, server::Server};

#[test]
fn idle_sessions_are_opened_in_steps_and_stay() {
    let server = Server::start();
    let pid = std::process::id().to_string();
    let report = report(&[
        "idle",
        "--server",
        server.address(),
        "--steps",
        "2,5",
        "--settle",
        "0.05",
        "--pid",
        &pid,
    ]);
    let steps = report["result"]["steps"].as_array().expect("a list");
    let numbers = |name: &str| steps.iter().map(|step| step[name].clone()).collect::<Vec<_>>();
    assert_eq!(numbers("sessions"), [2, 5]);
    assert_eq!(numbers("lost"), [0, 0]);
    assert!(numbers("rss_bytes_per_session").iter().all(Value::is_number));
    assert_eq!(server.logins(), 5);
}

#[test]
fn messages_reach_their_receivers_in_order() {
    let server = Server::start();
    let traffic = [
        "--pairs",
        "3",
        "--window",
        "4",
        "--warm-up",
        "0.05",
        "--duration",
        "0.3",
        "--source-addresses",
        "2",
    ];
    let report = report(&[&["messages", "--server", server.address()], &traffic[..]].concat());
    let result = &report["result"];
    assert!(result["messages"].as_u64().expect("a number") > 0);
    assert_eq!(
        (&result["misplaced"], &result["pairs"]),
        (&Value::from(0), &Value::from(3))
    );
    assert_eq!(result["server"], Value::Null, "no process was named");
    assert_eq!(server.logins(), 6);
}

#[test]
fn logins_are_repeated_and_their_passwords_are_not_in_the_report() {
    let server = Server::start();
    let arguments = [
        "login",
        "--server",
        server.address(),
        "--users",
        "3",
        "--concurrency",
        "2",
        "--duration",
        "0.3",
    ];
    let report = report(&[&arguments[..], &["--password-template", "p{n}"]].concat());
    let logins = report["result"]["logins"].as_u64().expect("a number");
    assert!(logins > 3, "{report}");
    assert!(server.logins() as u64 >= logins);
    assert!(!report["arguments"].to_string().contains("p{n}"));
}

#[test]
fn logins_with_contacts_go_on_until_all_of_them_show() {
    let server = Server::start();
    let arguments = [
        "login",
        "--server",
        server.address(),
        "--users",
        "5",
        "--contacts",
        "3",
        "--concurrency",
        "2",
        "--duration",
        "0.3",
    ];
    // The second time they are contacts already.
    for _ in 0..2 {
        let report = report(&arguments);
        let result = &report["result"];
        assert!(result["logins"].as_u64().expect("a number") > 0, "{report}");
        assert_eq!(result["contacts"], 3);
    }
}

#[test]
fn more_contacts_than_users_are_refused() {
    let output = loadtest(&["login", "--server", "127.0.0.1:1", "--users", "2", "--contacts", "3"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_wrong_password_is_an_error_that_names_the_account() {
    let server = Server::start();
    let arguments = [
        "idle",
        "--server",
        server.address(),
        "--steps",
        "1",
        "--first-user",
        "7",
    ];
    let output = loadtest(&[&arguments[..], &["--password-template", "wrong"]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let sentence = String::from_utf8_lossy(&output.stderr);
    assert!(sentence.contains("u7 cannot log in: not authenticated"), "{sentence}");
}

#[test]
fn a_server_that_is_not_there_is_an_error_and_a_sentence() {
    let output = loadtest(&["login", "--server", "127.0.0.1:1", "--users", "1"]);
    assert_eq!(output.status.code(), Some(1));
    let sentence = String::from_utf8_lossy(&output.stderr);
    assert!(
        sentence.contains("u0 cannot log in: the server cannot be reached"),
        "{sentence}"
    );
}

#[test]
fn steps_that_do_not_ascend_are_refused() {
    let output = loadtest(&["idle", "--server", "127.0.0.1:1", "--steps", "5,2"]);
    assert_eq!(output.status.code(), Some(1));
}
