//! The checker is shown histories that are good and such that are not, and has to tell them apart.
//!
//! Written as lines: who, what. Messages are `sent SESSION TO ID`, their text is `text of ID`.

use super::{Event, History, Returned, Summary, Violation, What, check};

/// A history of lines like those in this file.
fn history(lines: &str) -> History {
    let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    let event = |(at, line): (usize, &str)| {
        let words: Vec<&str> = line.split_whitespace().collect();
        Event {
            at: at as u64,
            by: words[0].to_owned(),
            what: what(&words[1..]),
        }
    };
    lines.enumerate().map(event).collect()
}

fn what(words: &[&str]) -> What {
    let own = |word: &str| word.to_owned();
    let text = |id: &str| format!("text of {id}");
    match *words {
        ["sent", session, to, id] => What::Sent {
            session: own(session),
            to: own(to),
            id: own(id),
            body: text(id),
        },
        ["acknowledged", id] => What::Acknowledged { id: own(id) },
        ["refused", id] => What::Refused {
            id: own(id),
            condition: own("resource-constraint"),
        },
        ["delivered", session, from, id] => What::Delivered {
            session: own(session),
            from: own(from),
            id: own(id),
            body: text(id),
        },
        ["delivered", session, from, id, "as", carried] => What::Delivered {
            session: own(session),
            from: own(from),
            id: own(carried),
            body: text(id),
        },
        ["delivered", session, from, id, "saying", body] => What::Delivered {
            session: own(session),
            from: own(from),
            id: own(id),
            body: own(body),
        },
        ["stored", id] => What::Stored { id: own(id) },
        ["writes", call, row, value] => What::Called {
            call: own(call),
            row: own(row),
            writes: Some(own(value)),
        },
        ["reads", call, row] => What::Called {
            call: own(call),
            row: own(row),
            writes: None,
        },
        ["wrote", call] => returned(call, Returned::Wrote),
        ["read", call, "nothing"] => returned(call, Returned::Read(None)),
        ["read", call, value] => returned(call, Returned::Read(Some(own(value)))),
        ["failed", call] => returned(call, Returned::Failed),
        ["leads", shard, term] => What::Leads {
            shard: shard.parse().unwrap(),
            term: term.parse().unwrap(),
        },
        ["rows", shard, applied, digest] => What::Rows {
            shard: shard.parse().unwrap(),
            applied: applied.parse().unwrap(),
            digest: own(digest),
        },
        _ => panic!("no event: {words:?}"),
    }
}

fn returned(call: &str, returned: Returned) -> What {
    What::Returned {
        call: call.to_owned(),
        returned,
    }
}

#[track_caller]
fn holds(lines: &str) {
    assert_eq!(check(&history(lines)), []);
}

/// What is found, as sentences.
#[track_caller]
fn fails(lines: &str, expected: &[&str]) {
    let found: Vec<String> = check(&history(lines)).iter().map(Violation::to_string).collect();
    assert_eq!(found, expected);
}

#[test]
fn what_is_delivered_stored_refused_or_not_acknowledged_is_not_lost() {
    holds(
        "a@x/1 sent s1 b@x m1
         a@x/1 sent s1 b@x m2
         a@x/1 sent s1 b@x m3
         a@x/1 sent s1 b@x m4
         a@x/1 acknowledged m1
         a@x/1 acknowledged m2
         a@x/1 acknowledged m3
         a@x/1 refused m2
         b@x/1 delivered t1 a@x/1 m1
         core stored m3",
    );
}

#[test]
fn what_was_acknowledged_and_came_nowhere_is_lost() {
    fails(
        "a@x/1 sent s1 b@x m1
         a@x/1 sent s1 b@x m2
         a@x/1 acknowledged m1
         a@x/1 acknowledged m2
         b@x/1 delivered t1 a@x/1 m2",
        &["message m1 of a@x/1 to b@x was acknowledged, and neither delivered, stored nor refused"],
    );
}

#[test]
fn what_comes_to_somebody_else_is_lost_and_invented() {
    fails(
        "a@x/1 sent s1 b@x m1
         a@x/1 acknowledged m1
         c@x/1 delivered t1 a@x/1 m1",
        &[
            "c@x/1 received a message m1 that was not sent so: it is for another account",
            "message m1 of a@x/1 to b@x was acknowledged, and neither delivered, stored nor refused",
        ],
    );
}

#[test]
fn what_nobody_has_sent_is_invented() {
    fails(
        "b@x/1 delivered t1 a@x/1 m1
         core stored m2",
        &[
            "b@x/1 received a message m1 that was not sent so: nobody has sent it",
            "core received a message m2 that was not sent so: it is stored, and nobody has sent it",
        ],
    );
}

#[test]
fn what_comes_before_it_is_sent_is_invented() {
    fails(
        "b@x/1 delivered t1 a@x/1 m1
         a@x/1 sent s1 b@x m1",
        &["b@x/1 received a message m1 that was not sent so: nobody has sent it"],
    );
}

#[test]
fn what_is_changed_on_its_way_is_invented() {
    fails(
        "a@x/1 sent s1 b@x m1
         a@x/1 sent s1 b@x m2
         b@x/1 delivered t1 a@x/1 m1 saying nonsense
         b@x/1 delivered t1 c@x/1 m2",
        &[
            "b@x/1 received a message m1 that was not sent so: its text is another",
            "b@x/1 received a message m2 that was not sent so: its sender is another",
        ],
    );
}

#[test]
fn a_repeat_in_another_session_is_allowed_with_its_id() {
    holds(
        "a@x/1 sent s1 b@x m1
         b@x/1 delivered t1 a@x/1 m1
         b@x/1 delivered t2 a@x/1 m1",
    );
    fails(
        "a@x/1 sent s1 b@x m1
         b@x/1 delivered t1 a@x/1 m1
         b@x/1 delivered t2 a@x/1 m1 as other",
        &[r#"b@x/1 received message m1 with the id "other""#],
    );
}

#[test]
fn a_repeat_in_one_session_is_none_unless_the_sender_has_repeated_it() {
    fails(
        "a@x/1 sent s1 b@x m1
         b@x/1 delivered t1 a@x/1 m1
         b@x/1 delivered t1 a@x/1 m1",
        &["b@x/1 received message m1 2 times in session t1; it was sent 1 times"],
    );
    holds(
        "a@x/1 sent s1 b@x m1
         a@x/1 sent s2 b@x m1
         b@x/1 delivered t1 a@x/1 m1
         b@x/1 delivered t1 a@x/1 m1",
    );
}

#[test]
fn a_device_is_told_of_its_own_messages_only() {
    fails(
        "a@x/1 sent s1 b@x m1
         b@x/1 acknowledged m1
         b@x/1 refused m1
         a@x/1 acknowledged m2",
        &[
            "b@x/1 was told of a message m1 that it had not sent: acknowledged",
            "b@x/1 was told of a message m1 that it had not sent: refused",
            "a@x/1 was told of a message m2 that it had not sent: acknowledged",
        ],
    );
}

#[test]
fn order_is_kept_for_each_session_and_address() {
    holds(
        "a@x/1 sent s1 b@x m1
         a@x/1 sent s1 c@x m2
         d@x/1 sent s2 b@x m3
         a@x/1 sent s1 b@x/1 m5
         a@x/1 sent s1 b@x m4
         b@x/1 delivered t2 a@x/1 m5
         c@x/1 delivered t1 a@x/1 m2
         b@x/1 delivered t2 d@x/1 m3
         b@x/1 delivered t2 a@x/1 m1
         b@x/1 delivered t2 a@x/1 m4",
    );
    fails(
        "a@x/1 sent s1 b@x m1
         a@x/1 sent s1 b@x m2
         a@x/1 sent s1 b@x m3
         b@x/1 delivered t1 a@x/1 m3
         b@x/1 delivered t1 a@x/1 m1
         b@x/1 delivered t1 a@x/1 m2",
        &["b@x received m3 before m2, which session s1 had sent before it"],
    );
}

#[test]
fn order_is_judged_by_what_came_first_and_to_whichever_device() {
    holds(
        "a@x/1 sent s1 b@x m1
         a@x/1 sent s1 b@x m2
         b@x/1 delivered t1 a@x/1 m1
         b@x/1 delivered t1 a@x/1 m2
         b@x/2 delivered t2 a@x/1 m1
         b@x/2 delivered t2 a@x/1 m2",
    );
}

#[test]
fn what_was_sent_again_the_other_way_round_has_no_order() {
    let again = |second: &str| {
        format!(
            "a@x/1 sent s1 b@x m1
             a@x/1 sent s1 b@x m2
             {second}
             b@x/1 delivered t1 a@x/1 m2
             b@x/1 delivered t1 a@x/1 m1"
        )
    };
    holds(&again("a@x/1 sent s2 b@x m2\na@x/1 sent s2 b@x m1"));
    let sentence = |session: &str| format!("b@x received m2 before m1, which session {session} had sent before it");
    fails(
        &again("a@x/1 sent s2 b@x m1\na@x/1 sent s2 b@x m2"),
        &[&sentence("s1"), &sentence("s2")],
    );
}

#[test]
fn a_row_is_what_was_written_last() {
    holds(
        "a@x/1 reads r1 row
         a@x/1 read r1 nothing
         a@x/1 writes w1 row one
         a@x/1 wrote w1
         a@x/2 reads r2 row
         a@x/2 read r2 one",
    );
    fails(
        "a@x/1 writes w1 row one
         a@x/1 wrote w1
         a@x/2 reads r1 row
         a@x/2 read r1 nothing",
        &["row row is not linearizable: no order of its 2 calls explains what they returned"],
    );
}

#[test]
fn calls_at_one_time_may_have_either_order() {
    let either = |read: &str| {
        format!(
            "a@x/1 writes w1 row one
             a@x/2 writes w2 row two
             a@x/1 wrote w1
             a@x/2 wrote w2
             a@x/1 reads r1 row
             a@x/1 read r1 {read}"
        )
    };
    holds(&either("one"));
    holds(&either("two"));
    fails(
        &either("three"),
        &["row row is not linearizable: no order of its 3 calls explains what they returned"],
    );
}

#[test]
fn two_readers_do_not_see_two_orders() {
    fails(
        "a@x/1 writes w1 row one
         a@x/2 writes w2 row two
         a@x/1 reads r1 row
         a@x/1 read r1 one
         a@x/1 reads r2 row
         a@x/1 read r2 two
         a@x/2 reads r3 row
         a@x/2 read r3 one
         a@x/1 wrote w1
         a@x/2 wrote w2",
        &["row row is not linearizable: no order of its 5 calls explains what they returned"],
    );
}

#[test]
fn what_failed_may_be_written_later_but_not_twice() {
    holds(
        "a@x/1 writes w1 row one
         a@x/1 failed w1
         a@x/2 reads r1 row
         a@x/2 read r1 nothing
         a@x/2 reads r2 row
         a@x/2 read r2 one",
    );
    // A write that is carried out twice undoes another.
    fails(
        "a@x/1 writes w1 row one
         a@x/1 wrote w1
         a@x/2 writes w2 row two
         a@x/2 wrote w2
         a@x/2 reads r1 row
         a@x/2 read r1 two
         a@x/2 reads r2 row
         a@x/2 read r2 one",
        &["row row is not linearizable: no order of its 4 calls explains what they returned"],
    );
}

#[test]
fn many_calls_at_once_are_explained() {
    let mut lines = String::new();
    for row in 0..3 {
        for call in 0..40 {
            lines += &format!("a@x/1 writes w{row}-{call} row{row} {call}\n");
            // Every third never returns.
            if call % 3 > 0 {
                lines += &format!("a@x/2 reads r{row}-{call} row{row}\na@x/2 read r{row}-{call} {call}\n");
                lines += &format!("a@x/1 wrote w{row}-{call}\n");
            }
        }
    }
    holds(&lines);
}

#[test]
fn a_shard_has_one_leader_in_a_term() {
    holds(
        "n1 leads 3 1
         n1 leads 3 1
         n2 leads 3 2
         n2 leads 4 1",
    );
    fails(
        "n1 leads 3 1
         n2 leads 3 1",
        &["shard 3 was led by n1 and by n2 in term 1"],
    );
}

#[test]
fn replicas_are_the_same() {
    holds(
        "n1 rows 3 10 abc
         n2 rows 3 11 def
         n3 rows 3 10 abc",
    );
    fails(
        "n1 rows 3 10 abc
         n3 rows 3 10 def",
        &["the rows of shard 3 at entry 10 are not the same at n1 and at n3"],
    );
}

#[test]
fn a_history_that_was_recorded_badly_is_not_judged() {
    fails(
        "a@x/1 sent s1 b@x m1
         a@x/1 sent s1 b@x m1
         c@x/1 sent s2 b@x m1
         a@x/1 wrote w1
         a@x/1 reads r1 row
         a@x/1 wrote r1",
        &[
            "the history makes no sense: message m1 is sent twice in session s1",
            "the history makes no sense: two messages have the id m1",
            "the history makes no sense: call w1 returns and was not called",
            "the history makes no sense: call r1 returns as another kind of call",
        ],
    );
}

const EVERYTHING: &str = "a@x/1 sent s1 b@x m1
    a@x/1 acknowledged m1
    a@x/1 sent s1 c@x m2
    a@x/1 refused m2
    b@x/1 delivered t1 a@x/1 m1
    b@x/1 delivered t2 a@x/1 m1
    a@x/1 sent s1 c@x m3
    core stored m3
    a@x/1 writes w1 row one
    a@x/1 wrote w1
    a@x/1 reads r1 row
    a@x/1 read r1 one
    a@x/1 reads r2 other
    a@x/1 read r2 nothing
    a@x/1 reads r3 row
    a@x/1 failed r3
    n1 leads 3 1
    n1 rows 3 10 abc";

#[test]
fn what_happened_is_counted() {
    let counted = Summary {
        sent: 3,
        acknowledged: 1,
        delivered: 1,
        refused: 1,
        repeated: 1,
        returned: 3,
    };
    assert_eq!(Summary::of(&history(EVERYTHING)), counted);
}

#[test]
fn a_history_is_lines_of_json() {
    let history = history(EVERYTHING);
    assert_eq!(check(&history), []);
    let mut lines = Vec::new();
    history.write(&mut lines).unwrap();
    assert_eq!(History::read(lines.as_slice()).unwrap(), history);
    let text = String::from_utf8(lines).unwrap();
    assert_eq!(
        text.lines().next().unwrap(),
        r#"{"at":0,"by":"a@x/1","what":"sent","session":"s1","to":"b@x","id":"m1","body":"text of m1"}"#
    );
    let error = History::read(&b"\n{\"at\":1}\n"[..]).unwrap_err();
    assert!(error.to_string().starts_with("line 2: "), "{error}");
}
