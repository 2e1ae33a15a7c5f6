//! Changes told to whoever wants to know, without waiting for anybody.

use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;

/// Readers of changes. A reader that takes none for too long is told to look at the whole again, and misses what came between;
/// nobody else notices.
#[derive(Debug)]
pub(crate) struct Feed<T> {
    /// `None` when there will be no more changes.
    readers: Mutex<Option<Vec<mpsc::Sender<T>>>>,
    /// The change that says: look at the whole again.
    look_again: fn() -> T,
    max: usize,
}

impl<T: Clone> Feed<T> {
    /// Readers may be behind by `max` changes.
    pub(crate) fn new(max: usize, look_again: fn() -> T) -> Self {
        Self {
            readers: Mutex::new(Some(Vec::new())),
            look_again,
            max: max.max(2),
        }
    }

    /// A new reader.
    pub(crate) fn subscribe(&self) -> mpsc::Receiver<T> {
        let (sender, receiver) = mpsc::channel(self.max);
        if let Some(readers) = &mut *self.readers.lock().unwrap_or_else(PoisonError::into_inner) {
            readers.push(sender);
        }
        receiver
    }

    pub(crate) fn tell(&self, change: &T) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(readers) = &mut *readers else { return };
        readers.retain(|reader| {
            // The last place is for saying that something was left out. An error here means that this was said, or that nobody
            // listens.
            let _ = match reader.capacity() {
                0 | 1 => reader.try_send((self.look_again)()),
                _ => reader.try_send(change.clone()),
            };
            !reader.is_closed()
        });
    }

    /// There will be no more changes: readers come to an end.
    pub(crate) fn close(&self) {
        *self.readers.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_falls_behind_is_told_to_look_again() {
        let feed = Feed::new(3, || 0);
        let (mut slow, mut fast) = (feed.subscribe(), feed.subscribe());
        for change in 1..=5 {
            feed.tell(&change);
            assert_eq!(fast.try_recv(), Ok(change));
        }
        assert_eq!(
            [slow.try_recv(), slow.try_recv(), slow.try_recv()],
            [Ok(1), Ok(2), Ok(0)]
        );
        feed.tell(&6);
        assert_eq!(slow.try_recv(), Ok(6));
    }

    #[test]
    fn readers_that_are_gone_are_forgotten() {
        let feed = Feed::new(3, || 0);
        drop(feed.subscribe());
        feed.tell(&1);
        assert!(
            feed.readers
                .lock()
                .expect("no panic")
                .as_ref()
                .is_some_and(Vec::is_empty)
        );
    }

    #[test]
    fn readers_of_a_closed_feed_come_to_an_end() {
        let feed = Feed::new(3, || 0);
        let mut before = feed.subscribe();
        feed.tell(&1);
        feed.close();
        feed.tell(&2);
        let end = Err(mpsc::error::TryRecvError::Disconnected);
        assert_eq!(
            [before.try_recv(), before.try_recv(), feed.subscribe().try_recv()],
            [Ok(1), end, end]
        );
    }
}
