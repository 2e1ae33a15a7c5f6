//! The command itself, on the one scenario that needs no server.

use std::process::Command;

use serde_json::Value;

#[test]
fn the_floor_is_measured_and_reported_as_json() {
    let output = Command::new(env!("CARGO_BIN_EXE_heronry-loadtest"))
        .args([
            "floor",
            "--pairs",
            "3",
            "--window",
            "2",
            "--warm-up",
            "0.05",
            "--duration",
            "0.3",
            "--json",
            "-",
        ])
        .output()
        .expect("the command runs");
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON and nothing else on standard output");
    assert_eq!(
        (&report["scenario"], &report["format"]),
        (&Value::from("floor"), &Value::from(1))
    );
    let result = &report["result"];
    assert_eq!(
        (&result["pairs"], &result["window"]),
        (&Value::from(3), &Value::from(2))
    );
    assert_eq!(result["misplaced"], 0);
    let messages = result["messages"].as_u64().expect("a number");
    assert!(messages > 0);
    assert_eq!(result["latency"]["count"], messages);
    assert_eq!(result["server"]["after"]["processes"], 1);
    assert!(report["generator"]["limited"].is_boolean());
}

#[test]
fn a_server_that_is_not_there_is_an_error_and_a_sentence() {
    let output = Command::new(env!("CARGO_BIN_EXE_heronry-loadtest"))
        .args(["login", "--server", "127.0.0.1:1", "--users", "1"])
        .output()
        .expect("the command runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let sentence = String::from_utf8_lossy(&output.stderr);
    assert!(
        sentence.contains("u0 cannot log in: the server cannot be reached"),
        "{sentence}"
    );
}
