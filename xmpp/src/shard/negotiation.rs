//! What a connection asks of its account before and beside stanzas: credentials, bind, resume, stream management.
//!
//! Each request may come again after a failover, from the same connection; the session row says whether it was carried out.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::accounts::AccountRow;
use super::anonymous::is_admitted;
use super::{Io, Output, Place, Shard, Turn};
use crate::jid::{BareJid, FullJid};
use crate::link::{Binding, Conn, EdgeId, Managed, ResumeRefused, SessionId, ToEdge};
use crate::random;
use crate::rows::{Rows, Timestamp};
use crate::sasl::{Credentials, ScramHash, is_anonymous};
use crate::session::{
    Inbound, Item, ManagedRow, Outbound, QueueRow, Session, Stage, WAITING, queue_key, queue_prefix, session_key,
};
use crate::stanza::StanzaError;
use crate::stream::StreamError;

/// Rows of what was under way that are looked at when a session is resumed; the credit keeps them far fewer.
const UNDER_WAY_ROWS: usize = 4096;

/// Random bytes in an SM-ID (XEP-0198 §5): it is a bearer secret.
const SECRET_BYTES: usize = 16;

impl Shard {
    /// Says what is needed to verify a password.
    pub(super) fn credentials(
        &mut self,
        edge: EdgeId,
        conn: Conn,
        account: &BareJid,
        hash: Option<ScramHash>,
        io: &mut Io<'_>,
    ) {
        let credentials = match self.account(account, io) {
            Ok(_) if self.restoring => Credentials::Unavailable,
            Ok(Some(row)) => row.credentials(hash),
            Ok(None) => Credentials::UnknownUser,
            Err(error) => {
                tracing::error!(%error, "credentials cannot be read");
                Credentials::Unavailable
            }
        };
        let mut turn = Turn::of(account);
        let credentials = Box::new(credentials);
        turn.to_edge(edge, ToEdge::Credentials { conn, credentials });
        self.finish(turn, io);
    }

    /// RFC 6120 §7: binds a resource.
    pub(super) fn bind(
        &mut self,
        edge: EdgeId,
        conn: Conn,
        account: &BareJid,
        resource: Option<&str>,
        version: u64,
        io: &mut Io<'_>,
    ) {
        let mut turn = Turn::of(account);
        let result = match self.bound_already(edge, conn, account) {
            Some(place) => {
                self.attach_again(place);
                Ok(place)
            }
            None => self.bind_new(&mut turn, edge, conn, account, resource, version, io),
        };
        let session = result.and_then(|place| self.sessions.get(place).ok_or_else(StanzaError::internal_server_error));
        let id = session.as_ref().ok().map(|session| session.id);
        let result = session.map(|session| Box::new(binding(session, None)));
        turn.to_edge(edge, ToEdge::Bound { conn, result });
        turn.effects.extend(id.map(super::Effect::Read));
        self.finish(turn, io);
    }

    /// A session that was bound for this connection in a former term; the connection hears of it only now.
    fn attach_again(&mut self, place: Place) {
        let drain = self.sessions.get_mut(place).and_then(|session| session.drain.as_mut());
        if let Some(until) = drain.and_then(|drain| drain.detached_until.take()) {
            self.sessions.goes_on(place, until);
        }
    }

    fn bound_already(&self, edge: EdgeId, conn: Conn, account: &BareJid) -> Option<Place> {
        let mut places = self.sessions.of_account(account.as_str()).iter().copied();
        places.find(|place| {
            self.sessions
                .get(*place)
                .is_some_and(|session| session.edge == edge && session.conn == conn)
        })
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    fn bind_new(
        &mut self,
        turn: &mut Turn,
        edge: EdgeId,
        conn: Conn,
        account: &BareJid,
        resource: Option<&str>,
        version: u64,
        io: &mut Io<'_>,
    ) -> Result<Place, StanzaError> {
        let blocks = self.check_version(account, version, io)?.blocks;
        let full = match resource {
            // RFC 6120 §7.7.2.1.
            Some(resource) => account
                .with_resource(resource)
                .map_err(|_| StanzaError::bad_request())?,
            None => self.generated(account, io)?,
        };
        // RFC 6120 §7.7.2.2: the newer connection wins; the former one is often dead and does not know it.
        if let Some(former) = self.sessions.of_resource(account.as_str(), full.resource()) {
            self.expel(turn, former, StreamError::conflict(), "replaced", io);
        }
        if self.sessions.of_account(account.as_str()).len() >= self.config.limits.sessions_per_account_max {
            io.out
                .push(Output::Count(super::Event::Refused("sessions-per-account")));
            return Err(StanzaError::resource_constraint().with_text("too many resources are bound to this account"));
        }
        self.sessions_bound += 1;
        let id = SessionId {
            term: self.term.term << 16 | u64::from(self.term.round & 0xffff),
            counter: self.sessions_bound,
            shard: self.id.0,
        };
        let session = Session {
            id,
            full,
            edge,
            conn,
            inbound: Inbound::default(),
            outbound: Outbound::default(),
            managed: None,
            priority: None,
            presence: None,
            memory: None,
            blocks,
            given: None,
            drain: None,
        };
        turn.put(session_key(account, id), &session.row());
        Ok(self.sessions.insert(session, io.elapsed))
    }

    fn generated(&self, account: &BareJid, io: &mut Io<'_>) -> Result<FullJid, StanzaError> {
        account
            .with_resource(&random::token(io.random))
            .map_err(|_| StanzaError::internal_server_error())
    }

    /// The credentials may have changed, or the account gone, since they were verified.
    fn check_version(&self, account: &BareJid, version: u64, io: &Io<'_>) -> Result<AccountRow, StanzaError> {
        if is_admitted(account, version) {
            return Ok(AccountRow::default());
        }
        match self.account(account, io) {
            Ok(Some(row)) if row.version == version => Ok(row),
            Ok(_) => Err(StanzaError::not_authorized().with_text("the credentials of this account have changed")),
            Err(_) => Err(StanzaError::internal_server_error()),
        }
    }

    /// XEP-0198 §3.
    pub(super) fn enable(&mut self, place: Place, base: u64, resume: bool, max: Option<u32>, io: &mut Io<'_>) {
        let longest = self.config.limits.resume_timeout_max;
        let mut secret = [0; SECRET_BYTES];
        io.random.fill(&mut secret);
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let account = session.full.bare();
        // A temporary account goes with its socket.
        let resume = resume && !is_anonymous(&account);
        let max = max.map_or(longest, |max| max.min(longest));
        let id = sm_id(session.id, &secret);
        session.outbound.count_from_here();
        session.managed = Some(Box::new(ManagedRow {
            id_hash: Sha256::digest(id.as_bytes()).to_vec(),
            max,
            frame_base: base,
            delivery_base: session.outbound.last(),
            resumable: resume,
        }));
        let managed = Managed {
            id: resume.then(|| id.into()),
            max,
            base,
            acknowledged: 0,
        };
        let mut turn = Turn::of(&account);
        turn.put(session_key(&account, session.id), &session.row());
        turn.to_edge(
            session.edge,
            ToEdge::Managed {
                conn: session.conn,
                managed,
            },
        );
        self.finish(turn, io);
    }

    /// XEP-0198 §5.
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn resume(
        &mut self,
        edge: EdgeId,
        conn: Conn,
        account: &BareJid,
        version: u64,
        previd: &str,
        h: u32,
        io: &mut Io<'_>,
    ) {
        let refused = match self.resumable(account, version, previd, io) {
            Ok(place) => self.resume_session(edge, conn, account, place, previd, h, io).err(),
            Err(refused) => Some(refused),
        };
        if let Some(refused) = refused {
            let mut turn = Turn::of(account);
            turn.to_edge(
                edge,
                ToEdge::Resumed {
                    conn,
                    result: Err(refused),
                },
            );
            self.finish(turn, io);
        }
    }

    /// The session an SM-ID names, if it is this account's and may be resumed.
    fn resumable(&self, account: &BareJid, version: u64, previd: &str, io: &Io<'_>) -> Result<Place, ResumeRefused> {
        self.check_version(account, version, io)
            .map_err(|error| ResumeRefused { error, h: None })?;
        let place = session_of(previd)
            .and_then(|id| self.sessions.find(id))
            .filter(|place| {
                self.sessions.get(*place).is_some_and(|session| {
                    let hash = Sha256::digest(previd.as_bytes());
                    session.full.bare_str() == account.as_str()
                        && session.managed.as_ref().is_some_and(|managed| {
                            managed.resumable && bool::from(managed.id_hash.as_slice().ct_eq(hash.as_slice()))
                        })
                })
            });
        place.ok_or_else(|| ResumeRefused {
            error: StanzaError::item_not_found(),
            h: None,
        })
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    fn resume_session(
        &mut self,
        edge: EdgeId,
        conn: Conn,
        account: &BareJid,
        place: Place,
        previd: &str,
        h: u32,
        io: &mut Io<'_>,
    ) -> Result<(), ResumeRefused> {
        let gone = || ResumeRefused {
            error: StanzaError::item_not_found(),
            h: None,
        };
        let former = self.sessions.get(place).ok_or_else(gone)?;
        let held_elsewhere = former.is_attached() && (former.edge, former.conn) != (edge, conn);
        if held_elsewhere {
            // XEP-0198 §5: the former stream is closed; what it was doing is committed before another goes on with it.
            let mut turn = Turn::of(account);
            turn.to_edge(
                former.edge,
                ToEdge::Close {
                    conn: former.conn,
                    error: StreamError::conflict(),
                },
            );
            self.detach(&mut turn, place, io);
            self.finish(turn, io);
        }
        let under_way = self
            .under_way(place, io)
            .map_err(|error| ResumeRefused { error, h: None })?;
        let session = self.sessions.get_mut(place).ok_or_else(gone)?;
        // A former leader gave these to the device and had no time to remove their rows.
        let released = session.outbound.released();
        let (done, under_way): (Vec<_>, Vec<_>) = under_way.into_iter().partition(|(order, _)| *order <= released);
        let handled = h.wrapping_sub(session.outbound.acknowledged());
        let counted = under_way.iter().filter(|(_, row)| row.counted).count();
        if handled as usize > counted {
            let error = StanzaError::unexpected_request().with_text("h is higher than what was sent");
            return Err(ResumeRefused { error, h: None });
        }
        let until = session.detached_until();
        let last = session.outbound.last();
        let base = session.managed.as_ref().map_or(0, |managed| managed.delivery_base);
        let has_had = under_way.iter().filter(|(_, row)| row.counted).take(handled as usize);
        let has_had: Vec<_> = has_had.map(|(_, row)| row.origin()).collect();
        self.sessions.note_given(place, has_had, io.elapsed);
        let session = self.sessions.get_mut(place).ok_or_else(gone)?;
        (session.edge, session.conn) = (edge, conn);
        session.outbound = Outbound::after(last, base, h);
        session.inbound = session.inbound.again();
        if let Some(drain) = &mut session.drain {
            drain.detached_until = None;
            drain.reading = None;
            drain.read = None;
            drain.stage = if drain.stored { Stage::Stored } else { Stage::Waiting };
            // Rows may have come while it was away.
            drain.written = true;
        }
        let (id, full) = (session.id, session.full.clone());
        let mut turn = Turn::of(account);
        turn.put(session_key(account, id), &session.row());
        let resumed = Box::new(binding(session, Some(previd)));
        turn.to_edge(
            edge,
            ToEdge::Resumed {
                conn,
                result: Ok(resumed),
            },
        );
        if let Some(until) = until {
            self.sessions.goes_on(place, until);
        }
        for (order, _) in done {
            turn.delete(queue_key(&full, id, order));
        }
        self.resend(&mut turn, place, under_way, handled);
        let takes = self.sessions.get(place).is_some_and(Session::takes_bare);
        if takes && self.stored_count(&turn, account, io).messages > 0 {
            // A former leader may have been bringing them. They were there before what has come for the session since.
            if let Some(drain) = self.sessions.get_mut(place).and_then(|session| session.drain.as_mut()) {
                drain.stage = Stage::Stored;
            }
            self.expect_stored(&mut turn, place);
        }
        turn.effects.push(super::Effect::Read(id));
        self.finish(turn, io);
        Ok(())
    }

    /// What was under way when the session lost its socket, oldest first, with its place in the queue.
    fn under_way(&self, place: Place, io: &Io<'_>) -> Result<Vec<(u64, QueueRow)>, StanzaError> {
        let session = self.sessions.get(place).ok_or_else(StanzaError::item_not_found)?;
        let prefix = queue_prefix(&session.full, session.id);
        let rows = self.overlay.over(io.rows).scan(&prefix, &prefix, UNDER_WAY_ROWS);
        let rows = rows.map_err(|error| {
            tracing::error!(%error, "the queue of a resumed session cannot be read");
            StanzaError::internal_server_error()
        })?;
        let row = |(key, value): (crate::rows::Key, crate::rows::Value)| {
            let order = u64::from_be_bytes(*key.last_chunk::<8>()?);
            Some((order, prost::Message::decode(value).ok()?))
        };
        Ok(rows
            .into_iter()
            .filter_map(row)
            .take_while(|(order, _)| *order < WAITING)
            .collect())
    }

    /// Forgets the first `handled` of what counts, and sends the rest again.
    fn resend(&mut self, turn: &mut Turn, place: Place, under_way: Vec<(u64, QueueRow)>, handled: u32) {
        let mut handled = handled;
        for (order, row) in under_way {
            let Some(session) = self.sessions.get_mut(place) else {
                return;
            };
            turn.delete(queue_key(&session.full, session.id, order));
            if row.counted && handled > 0 {
                handled -= 1;
                continue;
            }
            let Some(stanza) = row.stanza() else { continue };
            let item = Item {
                origin: row.origin(),
                at: Timestamp(row.at),
                stanza: stanza.into(),
            };
            // The row of what is under way has its delivery's number.
            let key = queue_key(&session.full, session.id, session.outbound.last() + 1);
            turn.put(key.clone(), &row);
            let delivery = session.outbound.push(item, Some(key), None);
            turn.to_edge(
                session.edge,
                ToEdge::Deliver {
                    conn: session.conn,
                    delivery,
                },
            );
        }
    }
}

/// What the edge starts with.
fn binding(session: &Session, previd: Option<&str>) -> Binding {
    let managed = session
        .managed
        .as_ref()
        .filter(|_| previd.is_some())
        .map(|managed| Managed {
            id: previd.filter(|_| managed.resumable).map(Into::into),
            max: managed.max,
            base: managed.frame_base,
            acknowledged: session.outbound.acknowledged(),
        });
    Binding {
        session: session.id,
        full: session.full.clone(),
        accepted: session.inbound.accepted(),
        released: session.outbound.released(),
        managed,
        presence: session.presence.clone(),
        memory: session.memory.clone(),
        given: session.given(),
    }
}

/// XEP-0198 §5: the SM-ID names the session and holds the secret that proves it.
fn sm_id(session: SessionId, secret: &[u8; SECRET_BYTES]) -> String {
    let mut bytes = session.to_bytes().to_vec();
    bytes.extend_from_slice(secret);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn session_of(previd: &str) -> Option<SessionId> {
    let bytes = URL_SAFE_NO_PAD.decode(previd).ok()?;
    SessionId::from_bytes(bytes.get(..bytes.len().checked_sub(SECRET_BYTES)?)?)
}
