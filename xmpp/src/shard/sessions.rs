//! The sessions of a shard: a slab, found by id, by account and by edge.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use crate::link::{Conn, EdgeId, Origin, SessionId};
use crate::session::Session;

/// Where a session stands in the slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place(u32);

/// A slab of sessions: an idle one costs its record, its addresses and two index entries.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    slab: Vec<Option<Session>>,
    free: Vec<Place>,
    by_id: HashMap<SessionId, Place>,
    /// The sessions of each account that has any, oldest first.
    by_account: HashMap<Box<str>, Places>,
    /// When detached sessions end.
    until: BTreeSet<(u64, Place)>,
    /// Sessions that remember what their devices were given, and when that is looked at next.
    remembering: VecDeque<(Duration, SessionId)>,
}

/// How often is looked at what devices were given.
const LOOK_AT_GIVEN: Duration = Duration::from_secs(60);

/// Sessions looked at in one tick.
const LOOKED_AT: usize = 1024;

/// Nearly always one.
#[derive(Debug)]
enum Places {
    One(Place),
    Many(Vec<Place>),
}

impl Places {
    fn as_slice(&self) -> &[Place] {
        match self {
            Self::One(place) => std::slice::from_ref(place),
            Self::Many(places) => places,
        }
    }
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Place, &Session)> {
        // A slab never holds more than u32::MAX sessions: see `insert`.
        self.slab
            .iter()
            .enumerate()
            .filter_map(|(n, session)| Some((Place(n as u32), session.as_ref()?)))
    }

    pub(super) fn get(&self, place: Place) -> Option<&Session> {
        self.slab.get(place.0 as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut Session> {
        self.slab.get_mut(place.0 as usize)?.as_mut()
    }

    pub(super) fn find(&self, id: SessionId) -> Option<Place> {
        self.by_id.get(&id).copied()
    }

    /// The session, if that connection of that edge holds it.
    pub(super) fn at(&self, id: SessionId, edge: EdgeId, conn: Conn) -> Option<Place> {
        let place = self.find(id)?;
        let session = self.get(place)?;
        (session.edge == edge && session.conn == conn && session.is_attached()).then_some(place)
    }

    /// The sessions of an account, oldest first.
    pub(super) fn of_account(&self, bare: &str) -> &[Place] {
        self.by_account.get(bare).map_or(&[], Places::as_slice)
    }

    /// The session of an account with this resource.
    pub(super) fn of_resource(&self, bare: &str, resource: &str) -> Option<Place> {
        let mut places = self.of_account(bare).iter().copied();
        places.find(|place| {
            self.get(*place)
                .is_some_and(|session| session.full.resource() == resource)
        })
    }

    /// The sessions an edge holds.
    pub(super) fn of_edge(&self, edge: EdgeId) -> Vec<Place> {
        let held = self
            .iter()
            .filter(|(_, session)| session.edge == edge && session.is_attached());
        held.map(|(place, _)| place).collect()
    }

    /// The session's device has been given these, and has confirmed it.
    pub(super) fn note_given(&mut self, place: Place, origins: impl IntoIterator<Item = Origin>, elapsed: Duration) {
        let Some(session) = self.get_mut(place) else { return };
        let began = session.given.is_none();
        session.note_given(origins, elapsed);
        if began && session.given.is_some() {
            let id = session.id;
            self.remembering.push_back((elapsed + LOOK_AT_GIVEN, id));
        }
    }

    /// Forgets what devices were given so long ago that nobody will send it again.
    pub(super) fn forget_given(&mut self, elapsed: Duration) {
        for _ in 0..LOOKED_AT {
            let Some((_, id)) = self.remembering.pop_front_if(|(due, _)| *due <= elapsed) else {
                return;
            };
            let session = self.find(id).and_then(|place| self.get_mut(place));
            if session.is_some_and(|session| session.forget_given(elapsed)) {
                self.remembering.push_back((elapsed + LOOK_AT_GIVEN, id));
            }
        }
    }

    pub(super) fn insert(&mut self, session: Session, elapsed: Duration) -> Place {
        if session.given.is_some() {
            self.remembering.push_back((elapsed + LOOK_AT_GIVEN, session.id));
        }
        let (id, bare) = (session.id, Box::from(session.full.bare_str()));
        let place = self.free.pop().unwrap_or_else(|| {
            self.slab.push(None);
            Place(u32::try_from(self.slab.len() - 1).expect("a process cannot hold 2^32 sessions"))
        });
        if let Some(free) = self.slab.get_mut(place.0 as usize) {
            *free = Some(session);
        }
        self.by_id.insert(id, place);
        self.by_account
            .entry(bare)
            .and_modify(|places| {
                let mut many = places.as_slice().to_vec();
                many.push(place);
                *places = Places::Many(many);
            })
            .or_insert(Places::One(place));
        place
    }

    pub(super) fn remove(&mut self, place: Place) -> Option<Session> {
        let session = self.slab.get_mut(place.0 as usize)?.take()?;
        self.free.push(place);
        self.by_id.remove(&session.id);
        let bare = session.full.bare_str();
        let left: Vec<Place> = self
            .of_account(bare)
            .iter()
            .copied()
            .filter(|other| *other != place)
            .collect();
        match left.as_slice() {
            [] => {
                self.by_account.remove(bare);
            }
            [one] => {
                self.by_account.insert(bare.into(), Places::One(*one));
            }
            _ => {
                self.by_account.insert(bare.into(), Places::Many(left));
            }
        }
        if let Some(until) = session.detached_until() {
            self.until.remove(&(until, place));
        }
        Some(session)
    }

    /// Notes when a detached session ends.
    pub(super) fn ends_at(&mut self, place: Place, until: u64) {
        self.until.insert((until, place));
    }

    /// A detached session is attached again.
    pub(super) fn goes_on(&mut self, place: Place, until: u64) {
        self.until.remove(&(until, place));
    }

    /// A detached session whose time is over.
    pub(super) fn overdue(&self, now: u64) -> Option<Place> {
        self.until
            .first()
            .filter(|(until, _)| *until <= now)
            .map(|(_, place)| *place)
    }
}
