//! XEP-0280: copies of messages for the account's other resources.

use std::sync::Arc;

use super::{Io, Place, Shard, Turn};
use crate::feature::Audience;
use crate::jid::BareJid;
use crate::link::{Forward, Origin};
use crate::stanza::Stanza;
use crate::xep::carbons::{self, Direction};

impl Shard {
    /// §6: what a resource sends, for the others.
    pub(super) fn carbons_of_sent(
        &mut self,
        turn: &mut Turn,
        sender: Place,
        frame: u64,
        stanza: &Arc<Stanza>,
        io: &mut Io<'_>,
    ) {
        let Some(session) = self.sessions.get(sender).filter(|_| stanza.kind.is_message()) else {
            return;
        };
        if self.sessions.of_account(session.full.bare_str()).len() < 2 {
            return;
        }
        let (account, session) = (session.full.bare(), session.id);
        self.copy(
            turn,
            &account,
            &[sender],
            Direction::Sent,
            Origin::Frame { session, frame },
            stanza,
            io,
        );
    }

    /// §7: what the resources at `places` receive, for the others.
    pub(super) fn carbons_of_received(
        &mut self,
        turn: &mut Turn,
        account: &BareJid,
        places: &[Place],
        forward: &Forward,
        io: &mut Io<'_>,
    ) {
        if self.sessions.of_account(account.as_str()).len() > places.len() {
            let Forward {
                session, frame, stanza, ..
            } = forward;
            let origin = Origin::Frame {
                session: *session,
                frame: *frame,
            };
            self.copy(turn, account, places, Direction::Received, origin, stanza, io);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "of what, for whom, and as what it is known")]
    fn copy(
        &mut self,
        turn: &mut Turn,
        account: &BareJid,
        but: &[Place],
        direction: Direction,
        origin: Origin,
        stanza: &Stanza,
        io: &mut Io<'_>,
    ) {
        let places = self.audience(account, Audience::Carbons);
        let others: Vec<Place> = places.into_iter().filter(|place| !but.contains(place)).collect();
        // What a resource sends to its own account is no news to the one that gets it.
        if others.is_empty() || !carbons::is_eligible(stanza, direction) {
            return;
        }
        for place in others {
            let Some(full) = self.sessions.get(place).map(|session| session.full.clone()) else {
                continue;
            };
            let copy = carbons::wrap(stanza, direction, account, &full);
            self.enqueue(turn, place, origin, Arc::new(copy), None, io);
        }
    }
}
