//! RFC 6121 §3 and Appendix A: what the four subscription stanzas do to the state between a user and a contact.
//!
//! A state has two sides that do not influence each other: the user's subscription to the contact and the contact's to the
//! user. Three values each make the nine states of A.1, and each of the eight tables is a rule about one side. Pre-approval
//! (§3.4) is a flag beside them. Always from the user's point of view: her server keeps this state, the contact's server one of
//! its own, and the two converge by the stanzas they exchange.

/// The `subscription` attribute of a roster item (§2.1.2.5), without `remove`, which is no state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Subscription {
    /// Neither sees the other.
    #[default]
    None,
    /// The user sees the contact's presence.
    To,
    /// The contact sees the user's presence.
    From,
    /// Both see each other.
    Both,
}

impl Subscription {
    /// The attribute's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::To => "to",
            Self::From => "from",
            Self::Both => "both",
        }
    }
}

/// One side's subscription to the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Side {
    /// None, and none asked for.
    #[default]
    None,
    /// Asked for, not answered yet.
    Pending,
    /// Granted.
    Subscribed,
}

/// What a user's server knows of her and one contact (A.1). The default is "None", which includes contacts it does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// The user's subscription to the contact; pending is "Pending Out".
    pub to: Side,
    /// The contact's subscription to the user; pending is "Pending In".
    pub from: Side,
    /// The user approved a request before there was one (§3.4). Kept until she sends `unsubscribed` or removes the item.
    pub approved: bool,
}

/// The presence types that manage subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Asks for a subscription.
    Subscribe,
    /// Gives one up, or takes the request back.
    Unsubscribe,
    /// Grants one.
    Subscribed,
    /// Refuses or cancels one.
    Unsubscribed,
}

/// The contact's view of the user's resources changes: what her server owes the contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Disclosure {
    /// The current presence of every available resource of hers, after the stanza that granted it (§3.1.5).
    Begins,
    /// `unavailable` from every available resource of hers: before her own `unsubscribed` (§3.2.2), after the contact's
    /// `unsubscribe` (§3.3.3).
    Ends,
}

/// What a subscription stanza from the user to the contact causes at her server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The state afterwards.
    pub next: State,
    /// Whether the stanza goes to the contact, from the user's bare JID.
    pub route: bool,
}

/// What a subscription stanza from the contact causes at the user's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The state afterwards.
    pub next: State,
    /// Whether the user sees the stanza: a `subscribe` at her available resources, now and whenever one becomes available while
    /// it is pending (§3.1.3); any other at her interested ones, before the push (§3.1.6, §3.2.3, §3.3.3).
    pub deliver: bool,
    /// What her server answers on her behalf, from bare JID to bare JID.
    pub reply: Option<Verb>,
}

impl State {
    /// The `subscription` attribute of the roster item.
    pub const fn subscription(self) -> Subscription {
        match (self.to, self.from) {
            (Side::Subscribed, Side::Subscribed) => Subscription::Both,
            (Side::Subscribed, _) => Subscription::To,
            (_, Side::Subscribed) => Subscription::From,
            _ => Subscription::None,
        }
    }

    /// Whether the roster item says `ask='subscribe'` (§2.1.2.2).
    pub const fn asks(self) -> bool {
        matches!(self.to, Side::Pending)
    }

    /// Whether the contact may see the user's presence.
    pub const fn discloses(self) -> bool {
        matches!(self.from, Side::Subscribed)
    }

    /// Whether the user is to see the contact's presence.
    pub const fn receives(self) -> bool {
        matches!(self.to, Side::Subscribed)
    }

    /// Whether a request of the contact waits for the user's answer. It is no reason for a roster item (A.1, state 3).
    pub const fn is_requested(self) -> bool {
        matches!(self.from, Side::Pending)
    }

    /// Whether the roster shows something else after the change to `next`: then there is an item, and it is pushed. The contact's
    /// pending request is the one thing a roster does not show.
    pub fn shows_otherwise(self, next: Self) -> bool {
        let shown = |state: Self| (state.subscription(), state.asks(), state.approved);
        shown(self) != shown(next)
    }

    /// What the change to `next` means for the presence that the contact sees.
    pub fn disclosure(self, next: Self) -> Option<Disclosure> {
        match (self.discloses(), next.discloses()) {
            (false, true) => Some(Disclosure::Begins),
            (true, false) => Some(Disclosure::Ends),
            _ => None,
        }
    }

    /// What the user's server sends the contact when she removes the item (§2.5.2), in this order. The state afterwards is "None".
    /// Requests that are not answered yet go with it: the user's is taken back, the contact's refused.
    pub fn removal(self) -> impl Iterator<Item = Verb> {
        let ends = [(self.to, Verb::Unsubscribe), (self.from, Verb::Unsubscribed)];
        ends.into_iter()
            .filter_map(|(side, verb)| (side != Side::None).then_some(verb))
    }
}

/// The user sends `verb` to the contact (A.2).
pub fn outbound(state: State, verb: Verb) -> Sent {
    let (next, route) = match (verb, state) {
        // Table 2, table 3: always routed, so that servers whose states differ get a chance to agree again.
        (Verb::Subscribe, State { to: Side::None, .. }) => (with_to(state, Side::Pending), true),
        (Verb::Subscribe, _) => (state, true),
        (Verb::Unsubscribe, _) => (with_to(state, Side::None), true),
        // Table 4, §3.4.2.
        (Verb::Subscribed, State { from: Side::None, .. }) => (with_approval(state, true), false),
        (
            Verb::Subscribed,
            State {
                from: Side::Pending, ..
            },
        ) => (with_from(state, Side::Subscribed), true),
        (
            Verb::Subscribed,
            State {
                from: Side::Subscribed, ..
            },
        ) => (state, false),
        // Table 5, §3.2.2: what is not there can still be a pre-approval.
        (Verb::Unsubscribed, _) => {
            let next = with_approval(with_from(state, Side::None), false);
            (next, state.from != Side::None)
        }
    };
    Sent { next, route }
}

/// The contact's `verb` arrives for the user (A.3).
pub fn inbound(state: State, verb: Verb) -> Received {
    let unchanged = |reply| (state, false, reply);
    let (next, deliver, reply) = match (verb, state) {
        // Table 6, §3.1.3 and §3.4.2: an approved request is answered and not delivered.
        (
            Verb::Subscribe,
            State {
                from: Side::Subscribed, ..
            },
        ) => unchanged(Some(Verb::Subscribed)),
        (
            Verb::Subscribe,
            State {
                from: Side::Pending, ..
            },
        ) => unchanged(None),
        (Verb::Subscribe, State { approved: true, .. }) => {
            (with_from(state, Side::Subscribed), false, Some(Verb::Subscribed))
        }
        (Verb::Subscribe, _) => (with_from(state, Side::Pending), true, None),
        // Table 7.
        (Verb::Unsubscribe, State { from: Side::None, .. }) => unchanged(None),
        (Verb::Unsubscribe, _) => (with_from(state, Side::None), true, Some(Verb::Unsubscribed)),
        // Table 8.
        (Verb::Subscribed, State { to: Side::Pending, .. }) => (with_to(state, Side::Subscribed), true, None),
        (Verb::Subscribed, _) => unchanged(None),
        // Table 9.
        (Verb::Unsubscribed, State { to: Side::None, .. }) => unchanged(None),
        (Verb::Unsubscribed, _) => (with_to(state, Side::None), true, None),
    };
    Received { next, deliver, reply }
}

const fn with_to(state: State, to: Side) -> State {
    State { to, ..state }
}

const fn with_from(state: State, from: Side) -> State {
    State { from, ..state }
}

const fn with_approval(state: State, approved: bool) -> State {
    State { approved, ..state }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn state(to: Side, from: Side) -> State {
        State {
            to,
            from,
            approved: false,
        }
    }

    // The nine states of A.1, in its order.
    const NONE: State = state(Side::None, Side::None);
    const NONE_OUT: State = state(Side::Pending, Side::None);
    const NONE_IN: State = state(Side::None, Side::Pending);
    const NONE_OUT_IN: State = state(Side::Pending, Side::Pending);
    const TO: State = state(Side::Subscribed, Side::None);
    const TO_IN: State = state(Side::Subscribed, Side::Pending);
    const FROM: State = state(Side::None, Side::Subscribed);
    const FROM_OUT: State = state(Side::Pending, Side::Subscribed);
    const BOTH: State = state(Side::Subscribed, Side::Subscribed);

    const ALL: [State; 9] = [NONE, NONE_OUT, NONE_IN, NONE_OUT_IN, TO, TO_IN, FROM, FROM_OUT, BOTH];

    const fn approved(state: State) -> State {
        with_approval(state, true)
    }

    /// Each row: existing state, routed, new state; the rows are the nine states in their order.
    fn check_outbound(verb: Verb, table: [(State, bool, State); 9]) {
        assert_eq!(table.map(|(existing, ..)| existing), ALL);
        for (existing, route, next) in table {
            assert_eq!(
                outbound(existing, verb),
                Sent { next, route },
                "{verb:?} in {existing:?}"
            );
        }
    }

    fn check_inbound(verb: Verb, table: [(State, bool, State, Option<Verb>); 9]) {
        assert_eq!(table.map(|(existing, ..)| existing), ALL);
        for (existing, deliver, next, reply) in table {
            let expected = Received { next, deliver, reply };
            assert_eq!(inbound(existing, verb), expected, "{verb:?} in {existing:?}");
        }
    }

    /// A.2.1, table 2.
    #[test]
    fn outbound_subscribe() {
        check_outbound(
            Verb::Subscribe,
            [
                (NONE, true, NONE_OUT),
                (NONE_OUT, true, NONE_OUT),
                (NONE_IN, true, NONE_OUT_IN),
                (NONE_OUT_IN, true, NONE_OUT_IN),
                (TO, true, TO),
                (TO_IN, true, TO_IN),
                (FROM, true, FROM_OUT),
                (FROM_OUT, true, FROM_OUT),
                (BOTH, true, BOTH),
            ],
        );
    }

    /// A.2.2, table 3.
    #[test]
    fn outbound_unsubscribe() {
        check_outbound(
            Verb::Unsubscribe,
            [
                (NONE, true, NONE),
                (NONE_OUT, true, NONE),
                (NONE_IN, true, NONE_IN),
                (NONE_OUT_IN, true, NONE_IN),
                (TO, true, NONE),
                (TO_IN, true, NONE_IN),
                (FROM, true, FROM),
                (FROM_OUT, true, FROM),
                (BOTH, true, FROM),
            ],
        );
    }

    /// A.2.3, table 4.
    #[test]
    fn outbound_subscribed() {
        check_outbound(
            Verb::Subscribed,
            [
                (NONE, false, approved(NONE)),
                (NONE_OUT, false, approved(NONE_OUT)),
                (NONE_IN, true, FROM),
                (NONE_OUT_IN, true, FROM_OUT),
                (TO, false, approved(TO)),
                (TO_IN, true, BOTH),
                (FROM, false, FROM),
                (FROM_OUT, false, FROM_OUT),
                (BOTH, false, BOTH),
            ],
        );
    }

    /// A.2.4, table 5.
    #[test]
    fn outbound_unsubscribed() {
        check_outbound(
            Verb::Unsubscribed,
            [
                (NONE, false, NONE),
                (NONE_OUT, false, NONE_OUT),
                (NONE_IN, true, NONE),
                (NONE_OUT_IN, true, NONE_OUT),
                (TO, false, TO),
                (TO_IN, true, TO),
                (FROM, true, NONE),
                (FROM_OUT, true, NONE_OUT),
                (BOTH, true, TO),
            ],
        );
    }

    /// A.3.1, table 6.
    #[test]
    fn inbound_subscribe() {
        let subscribed = Some(Verb::Subscribed);
        check_inbound(
            Verb::Subscribe,
            [
                (NONE, true, NONE_IN, None),
                (NONE_OUT, true, NONE_OUT_IN, None),
                (NONE_IN, false, NONE_IN, None),
                (NONE_OUT_IN, false, NONE_OUT_IN, None),
                (TO, true, TO_IN, None),
                (TO_IN, false, TO_IN, None),
                (FROM, false, FROM, subscribed),
                (FROM_OUT, false, FROM_OUT, subscribed),
                (BOTH, false, BOTH, subscribed),
            ],
        );
    }

    /// A.3.2, table 7.
    #[test]
    fn inbound_unsubscribe() {
        let unsubscribed = Some(Verb::Unsubscribed);
        check_inbound(
            Verb::Unsubscribe,
            [
                (NONE, false, NONE, None),
                (NONE_OUT, false, NONE_OUT, None),
                (NONE_IN, true, NONE, unsubscribed),
                (NONE_OUT_IN, true, NONE_OUT, unsubscribed),
                (TO, false, TO, None),
                (TO_IN, true, TO, unsubscribed),
                (FROM, true, NONE, unsubscribed),
                (FROM_OUT, true, NONE_OUT, unsubscribed),
                (BOTH, true, TO, unsubscribed),
            ],
        );
    }

    /// A.3.3, table 8.
    #[test]
    fn inbound_subscribed() {
        check_inbound(
            Verb::Subscribed,
            [
                (NONE, false, NONE, None),
                (NONE_OUT, true, TO, None),
                (NONE_IN, false, NONE_IN, None),
                (NONE_OUT_IN, true, TO_IN, None),
                (TO, false, TO, None),
                (TO_IN, false, TO_IN, None),
                (FROM, false, FROM, None),
                (FROM_OUT, true, BOTH, None),
                (BOTH, false, BOTH, None),
            ],
        );
    }

    /// A.3.4, table 9.
    #[test]
    fn inbound_unsubscribed() {
        check_inbound(
            Verb::Unsubscribed,
            [
                (NONE, false, NONE, None),
                (NONE_OUT, true, NONE, None),
                (NONE_IN, false, NONE_IN, None),
                (NONE_OUT_IN, true, NONE_IN, None),
                (TO, true, NONE, None),
                (TO_IN, true, NONE_IN, None),
                (FROM, false, FROM, None),
                (FROM_OUT, true, FROM, None),
                (BOTH, true, FROM, None),
            ],
        );
    }

    /// §3.4.2, and A.3.1 note 1.
    #[test]
    fn an_approved_request_is_answered_and_not_delivered() {
        for (existing, next) in [(NONE, FROM), (NONE_OUT, FROM_OUT), (TO, BOTH)] {
            let received = inbound(approved(existing), Verb::Subscribe);
            let expected = Received {
                next: approved(next),
                deliver: false,
                reply: Some(Verb::Subscribed),
            };
            assert_eq!(received, expected, "{existing:?}");
            assert_eq!(approved(existing).disclosure(received.next), Some(Disclosure::Begins));
        }
    }

    /// §3.4.2, implementation notes: the approval is kept until the user takes it back.
    #[test]
    fn an_approval_lasts_until_unsubscribed_is_sent() {
        for existing in ALL.map(approved) {
            for verb in [Verb::Subscribe, Verb::Unsubscribe, Verb::Subscribed] {
                assert!(outbound(existing, verb).next.approved, "{verb:?} in {existing:?}");
            }
            for verb in [Verb::Subscribe, Verb::Unsubscribe, Verb::Subscribed, Verb::Unsubscribed] {
                assert!(inbound(existing, verb).next.approved, "{verb:?} in {existing:?}");
            }
            assert!(!outbound(existing, Verb::Unsubscribed).next.approved, "{existing:?}");
        }
        // §3.2.2, 2: nobody hears of it.
        let cancelled = outbound(approved(TO), Verb::Unsubscribed);
        assert_eq!(cancelled, Sent { next: TO, route: false });
        assert!(approved(TO).shows_otherwise(TO));
    }

    /// A.1: how the nine states are reflected in the roster.
    #[test]
    fn states_in_the_roster() {
        let shown = ALL.map(|state| (state.subscription().as_str(), state.asks()));
        let expected = [
            ("none", false),
            ("none", true),
            ("none", false),
            ("none", true),
            ("to", false),
            ("to", false),
            ("from", false),
            ("from", true),
            ("both", false),
        ];
        assert_eq!(shown, expected);
    }

    /// A.1, state 3, and the second security warning of §3.1.3.
    #[test]
    fn a_request_that_waits_is_not_in_the_roster() {
        for (without, with) in [(NONE, NONE_IN), (NONE_OUT, NONE_OUT_IN), (TO, TO_IN)] {
            assert!(!without.shows_otherwise(with) && !with.shows_otherwise(without));
        }
        assert!(NONE.shows_otherwise(NONE_OUT) && NONE.shows_otherwise(approved(NONE)) && FROM.shows_otherwise(BOTH));
    }

    /// §3.1.5, §3.2.2, §3.3.3.
    #[test]
    fn presence_is_disclosed_from_approval_to_cancellation() {
        assert_eq!(NONE_IN.disclosure(FROM), Some(Disclosure::Begins));
        assert_eq!(FROM.disclosure(NONE), Some(Disclosure::Ends));
        assert_eq!(BOTH.disclosure(TO), Some(Disclosure::Ends));
        // A refused request, and everything about the other side.
        for (state, next) in [(NONE_IN, NONE), (FROM, BOTH), (NONE_OUT, TO), (BOTH, FROM)] {
            assert_eq!(state.disclosure(next), None, "{state:?} to {next:?}");
        }
    }

    /// §2.5.2.
    #[test]
    fn removing_an_item_ends_both_sides() {
        use Verb::{Unsubscribe, Unsubscribed};
        let expected: [&[Verb]; 9] = [
            &[],
            &[Unsubscribe],
            &[Unsubscribed],
            &[Unsubscribe, Unsubscribed],
            &[Unsubscribe],
            &[Unsubscribe, Unsubscribed],
            &[Unsubscribed],
            &[Unsubscribe, Unsubscribed],
            &[Unsubscribe, Unsubscribed],
        ];
        for (state, expected) in ALL.into_iter().zip(expected) {
            assert!(state.removal().eq(expected.iter().copied()), "{state:?}");
        }
    }

    /// Whatever two users send, once all has arrived their servers agree: §3's promise to "state that spans two accounts".
    #[test]
    fn two_servers_agree_again() {
        const VERBS: [Verb; 4] = [Verb::Subscribe, Verb::Unsubscribe, Verb::Subscribed, Verb::Unsubscribed];
        for script in 0..4usize.pow(5) * 2usize.pow(5) {
            let (mut juliet, mut romeo) = (NONE, NONE);
            let mut rest = script;
            for _ in 0..5 {
                let (verb, by_juliet) = (VERBS[rest % 4], rest / 4 % 2 == 0);
                rest /= 8;
                let (sender, recipient) = if by_juliet {
                    (&mut juliet, &mut romeo)
                } else {
                    (&mut romeo, &mut juliet)
                };
                exchange(sender, recipient, verb);
                assert_eq!((juliet.to, juliet.from), (romeo.from, romeo.to), "script {script}");
            }
        }
    }

    fn exchange(sender: &mut State, recipient: &mut State, verb: Verb) {
        let sent = outbound(*sender, verb);
        *sender = sent.next;
        if sent.route {
            let received = inbound(*recipient, verb);
            *recipient = received.next;
            if let Some(reply) = received.reply {
                // An automatic answer is no stanza of the user's: only its recipient's state changes.
                *sender = inbound(*sender, reply).next;
            }
        }
    }
}
