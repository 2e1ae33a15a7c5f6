use serde_json::Value;

use crate::{loadtest, report};

#[test]
fn the_floor_is_measured_and_reported_as_json() {
    let report = report(&[
        "floor",
        "--pairs",
        "3",
        "--window",
        "2",
        "--warm-up",
        "0.05",
        "--duration",
        "0.3",
    ]);
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
fn people_get_a_table() {
    let output = loadtest(&["floor", "--pairs", "1", "--warm-up", "0.05", "--duration", "0.2"]);
    assert!(output.status.success(), "{output:?}");
    let table = String::from_utf8_lossy(&output.stdout);
    for part in ["floor\n", "server CPU per message", "latency p99", "the generator"] {
        assert!(table.contains(part), "{part:?} is missing in {table}");
    }
}
