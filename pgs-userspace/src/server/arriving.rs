//! Room for connections that have not said yet what they want. Where there is none left, the oldest
//! of them makes it: whoever opens thousands and says nothing keeps nobody else out. A client that
//! speaks does so within milliseconds, and is then no longer among them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::Ordering::SeqCst;

use tokio::sync::Notify;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

/// The room.
#[derive(Debug)]
pub(super) struct Arriving {
    places: Arc<Semaphore>,
    places_max: usize,
    /// Accepted connections that have no place yet.
    outside: AtomicUsize,
    /// Who came first is at the front; who has left may still be among them.
    order: Mutex<VecDeque<Weak<Seat>>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct ArrivalSeat {
    seat: Arc<Seat>,
    _permit: OwnedSemaphorePermit,
}

/// Of the task that serves a connection: tells when it has to make room.
#[derive(Debug)]
pub(super) struct Leave(Arc<Seat>);

/// An accepted connection that has no place yet.
#[derive(Debug)]
pub(super) struct Outside(Arc<Arriving>);

#[derive(Debug)]
struct Seat {
    taken: AtomicBool,
    leave: Notify,
}

impl Arriving {
    pub(super) fn new(places_max: usize) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(places_max)),
            places_max,
            outside: AtomicUsize::new(0),
            order: Mutex::default(),
        })
    }

    /// A connection was accepted.
    pub(super) fn comes(self: &Arc<Self>) -> Outside {
        self.outside.fetch_add(1, SeqCst);
        Outside(Arc::clone(self))
    }

    /// Whether nobody has a place, or waits for one.
    pub(super) fn is_empty(&self) -> bool {
        self.outside.load(SeqCst) == 0 && self.places.available_permits() == self.places_max
    }

    fn sits_down(&self, permit: OwnedSemaphorePermit) -> (ArrivalSeat, Leave) {
        let seat = Arc::new(Seat {
            taken: AtomicBool::new(true),
            leave: Notify::new(),
        });
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if order.len() >= 2 * self.places_max {
            // At most half of them have a place.
            order.retain(|seat| seat.upgrade().is_some_and(|seat| seat.is_taken()));
        }
        order.push_back(Arc::downgrade(&seat));
        drop(order);
        let leave = Leave(Arc::clone(&seat));
        let seat = ArrivalSeat {
            seat,
            _permit: permit,
        };
        (seat, leave)
    }

    fn has_the_oldest_leave(&self) {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(oldest) = order.pop_front() {
            if let Some(seat) = oldest.upgrade()
                && seat.is_taken()
            {
                seat.leave.notify_one();
                return;
            }
        }
    }
}

impl Outside {
    /// Takes a place, if need be that of the oldest. None where the room is closed.
    pub(super) async fn enter(self) -> Option<(ArrivalSeat, Leave)> {
        let places = Arc::clone(&self.0.places);
        let permit = match Arc::clone(&places).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.0.has_the_oldest_leave();
                places.acquire_owned().await.ok()?
            }
        };
        Some(self.0.sits_down(permit))
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.0.outside.fetch_sub(1, SeqCst);
    }
}

impl Drop for ArrivalSeat {
    fn drop(&mut self) {
        self.seat.taken.store(false, Relaxed);
    }
}

impl Seat {
    fn is_taken(&self) -> bool {
        self.taken.load(Relaxed)
    }
}

impl Leave {
    /// Returns when the connection has to make room; never where it has given its place back.
    /// Polled in the same task as what holds the place, so that neither changes in between.
    pub(super) async fn told(self) {
        self.0.leave.notified().await;
        if !self.0.is_taken() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(20);
    const LIMIT: Duration = Duration::from_secs(10);

    async fn enters(room: &Arc<Arriving>) -> (ArrivalSeat, Leave) {
        room.comes().enter().await.unwrap()
    }

    #[tokio::test]
    async fn the_oldest_makes_room_and_nobody_else() {
        let room = Arriving::new(2);
        let (oldest, leaves) = enters(&room).await;
        let (_second, stays) = enters(&room).await;
        let newest = room.comes();
        let entering = tokio::spawn(newest.enter());
        timeout(LIMIT, leaves.told()).await.unwrap();
        drop(oldest);
        let entered = timeout(LIMIT, entering).await.unwrap().unwrap();
        assert!(entered.is_some());
        assert!(timeout(MOMENT, stays.told()).await.is_err());
    }

    #[tokio::test]
    async fn who_has_given_the_place_back_is_left_alone() {
        let room = Arriving::new(1);
        let (seat, leave) = enters(&room).await;
        let waiting = room.comes();
        let entering = tokio::spawn(waiting.enter());
        tokio::task::yield_now().await;
        // Told to leave, it was just logging in.
        drop(seat);
        assert!(timeout(MOMENT, leave.told()).await.is_err());
        assert!(timeout(LIMIT, entering).await.unwrap().unwrap().is_some());
    }

    #[tokio::test]
    async fn the_room_is_empty_when_all_have_gone_and_remembers_nobody() {
        const MANY: usize = 1_000;
        let room = Arriving::new(4);
        assert!(room.is_empty());
        for _ in 0..MANY {
            let outside = room.comes();
            assert!(!room.is_empty());
            drop(outside.enter().await.unwrap());
        }
        assert!(room.is_empty());
        assert!(room.order.lock().unwrap().len() <= 8);
    }
}
