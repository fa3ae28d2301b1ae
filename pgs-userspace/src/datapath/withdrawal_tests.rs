//! A backend that sends without end leaves the verdict, and comes back: at a real worker on the
//! running kernel, with bytes that arrive between any two steps.

use std::io::Read as _;
use std::io::Write as _;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use super::arrivals_tests::Handed;
use super::arrivals_tests::LIMIT;
use super::arrivals_tests::expect;
use super::arrivals_tests::hand_over;
use super::arrivals_tests::kernel;
use super::arrivals_tests::pattern;
use super::kernel::KernelPath;
use super::kernel::Step;
use crate::config::limits::RELAPSE_SMALL_TURNS;
use crate::config::limits::RETURN_AFTER;

/// More than the sockets of a session and the router hold together.
const LARGE_BYTES: usize = 24 << 20;

const TURNS_MAX: usize = 20;

const CLIENT_PAUSE: Duration = Duration::from_millis(50);

/// Has the backend, which is this very thread, send large turns while the client reads them, until
/// a step has come once more: where others take the processors, it may not be faster than the
/// router, and does not leave the verdict then.
pub(super) fn large_turns(handed: &mut Handed, seed: usize, steps: &AtomicUsize) {
    let before = steps.load(Relaxed);
    for _ in 0..TURNS_MAX {
        let mut client = handed.client.try_clone().unwrap();
        let reading = thread::spawn(move || {
            // The backend gets ahead of the router only where its client does not read as fast.
            thread::sleep(CLIENT_PAUSE);
            expect(&mut client, &pattern(seed, LARGE_BYTES));
        });
        let sent = handed.backend.write_all(&pattern(seed, LARGE_BYTES));
        sent.unwrap();
        reading.join().unwrap();
        for _ in 0..2 {
            if steps.load(Relaxed) > before {
                return;
            }
            // Silent for long enough, it comes back.
            thread::sleep(2 * RETURN_AFTER);
        }
    }
    panic!("it never comes to that");
}

/// Questions to a backend that sleeps until one comes, as a server does, until an answer is
/// redirected; then small turns.
pub(super) fn question(handed: &mut Handed, kernel: &KernelPath) {
    let place = handed.place();
    for _ in 0..TURNS_MAX {
        let before = kernel.flows().bytes(place).to_client;
        let mut client = handed.client.try_clone().unwrap();
        let asking = thread::spawn(move || {
            thread::sleep(Duration::from_millis(1));
            client.write_all(b"question").unwrap();
        });
        expect(&mut handed.backend, b"question");
        asking.join().unwrap();
        handed.backend.write_all(b"answer").unwrap();
        expect(&mut handed.client, b"answer");
        if kernel.flows().bytes(place).to_client > before {
            break;
        }
    }
    handed.small_turns(kernel);
}

/// A session, and how often its backend has passed each of these steps.
fn session<const COUNT: usize>(
    kernel: &KernelPath,
    steps: [Step; COUNT],
    mut arrives: impl FnMut(Step, usize, &mut UnixStream) + Send + 'static,
) -> (Handed, [Arc<AtomicUsize>; COUNT]) {
    let counts = [(); COUNT].map(|()| Arc::new(AtomicUsize::new(0)));
    let counted = counts.clone();
    let handed = hand_over(kernel, b"", move |now, _, backend| {
        if let Some(at) = steps.iter().position(|step| *step == now) {
            let before = counted[at].fetch_add(1, Relaxed);
            arrives(now, before, backend);
        }
    });
    handed.wait_for_kernel();
    (handed, counts)
}

fn wait_for(count: &AtomicUsize, least: usize) {
    let deadline = Instant::now() + LIMIT;
    while count.load(Relaxed) < least {
        assert!(Instant::now() < deadline, "it does not happen");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_large_turn_leaves_the_verdict_and_small_ones_are_redirected_again() {
    let Some(kernel) = kernel() else { return };
    let (mut handed, [withdrawn, returned]) =
        session(&kernel, [Step::Withdrawn, Step::Returned], |_, _, _| {});
    for turn in 0..3 {
        large_turns(&mut handed, turn, &withdrawn);
        question(&mut handed, &kernel);
        assert_eq!(returned.load(Relaxed), withdrawn.load(Relaxed));
    }
}

#[test]
fn a_silent_backend_comes_back_without_being_asked() {
    let Some(kernel) = kernel() else { return };
    let (mut handed, [withdrawn, returned]) =
        session(&kernel, [Step::Withdrawn, Step::Returned], |_, _, _| {});
    large_turns(&mut handed, 1, &withdrawn);
    wait_for(&returned, withdrawn.load(Relaxed));
    question(&mut handed, &kernel);
}

/// A thread of the backend's, which sleeps when it has sent: what the worker itself sent would seem
/// to come from a backend that is awake whenever it looks.
fn speaker() -> impl FnMut(&UnixStream, Vec<u8>) + Send + 'static {
    let (send, to_send) = sync_channel::<(UnixStream, Vec<u8>)>(0);
    let (tell, sent) = sync_channel(0);
    thread::spawn(move || {
        for (mut end, bytes) in to_send {
            end.write_all(&bytes).unwrap();
            tell.send(()).unwrap();
        }
    });
    move |end, bytes| {
        send.send((end.try_clone().unwrap(), bytes)).unwrap();
        sent.recv().unwrap();
    }
}

/// Too early for the verdict, or just in time: what is sent as it comes back keeps its place, and
/// nothing waits for a successor that may never come.
#[test]
fn what_a_backend_sends_as_it_comes_back_is_not_held_up() {
    let Some(kernel) = kernel() else { return };
    for step in [Step::Returning, Step::Returned] {
        for pieces in [1, 2, 5] {
            let mut speak = speaker();
            let (mut handed, [withdrawn, _]) =
                session(&kernel, [Step::Withdrawn, step], move |now, before, end| {
                    // The first time only: it may come back once more for the small turns.
                    if now == step && before == 0 {
                        for piece in 0..pieces {
                            speak(end, pattern(piece, 3_000));
                        }
                    }
                });
            large_turns(&mut handed, 7, &withdrawn);
            for piece in 0..pieces {
                expect(&mut handed.client, &pattern(piece, 3_000));
            }
            question(&mut handed, &kernel);
        }
    }
}

/// One too early and one just in time: what the second one wakes is the first, and nothing more
/// comes.
#[test]
fn what_a_backend_sends_on_both_sides_of_coming_back_is_not_held_up() {
    let Some(kernel) = kernel() else { return };
    let steps = [Step::Withdrawn, Step::Returning, Step::Returned];
    let mut speak = speaker();
    let (mut handed, [withdrawn, ..]) = session(&kernel, steps, move |now, before, end| {
        if now != Step::Withdrawn && before == 0 {
            speak(end, pattern(usize::from(now == Step::Returned), 3_000));
        }
    });
    large_turns(&mut handed, 7, &withdrawn);
    for piece in 0..2 {
        expect(&mut handed.client, &pattern(piece, 3_000));
    }
    question(&mut handed, &kernel);
}

#[test]
fn an_end_without_a_verdict_is_passed_on() {
    let Some(kernel) = kernel() else { return };
    let (mut handed, [withdrawn, returned]) =
        session(&kernel, [Step::Withdrawn, Step::Returned], |_, _, _| {});
    large_turns(&mut handed, 3, &withdrawn);
    let sent = pattern(8, LARGE_BYTES / 100);
    handed.backend.write_all(&sent).unwrap();
    handed.backend.shutdown(Shutdown::Both).unwrap();
    let mut received = Vec::new();
    handed.client.read_to_end(&mut received).unwrap();
    // Where it had come back before this, the kernel drops what was not read.
    let has_verdict = returned.load(Relaxed) == withdrawn.load(Relaxed);
    let whole = received.len() == sent.len() || has_verdict;
    assert!(
        sent.starts_with(&received) && whole,
        "{} of {}, a verdict: {has_verdict}",
        received.len(),
        sent.len()
    );
}

/// What its client sent in large meanwhile is answered when it comes back: the next question needs
/// no router.
#[test]
fn a_client_begins_a_new_turn_when_its_backend_comes_back() {
    const ASKED_BYTES: usize = 1 << 20;
    let Some(kernel) = kernel() else { return };
    let counts = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let counted = counts.clone();
    let mut handed = hand_over(&kernel, b"", move |step, client, _| {
        if step == Step::Withdrawn && counted[0].fetch_add(1, Relaxed) == 0 {
            let mut client = client.try_clone().unwrap();
            thread::spawn(move || client.write_all(&pattern(5, ASKED_BYTES)).unwrap());
        }
        counted[1].fetch_add(usize::from(step == Step::Returned), Relaxed);
    });
    let [withdrawn, returned] = counts;
    handed.wait_for_kernel();
    let mut backend = handed.backend.try_clone().unwrap();
    let reading = thread::spawn(move || expect(&mut backend, &pattern(5, ASKED_BYTES)));
    large_turns(&mut handed, 4, &withdrawn);
    reading.join().unwrap();
    wait_for(&returned, withdrawn.load(Relaxed));
    // Until the last look is over.
    thread::sleep(2 * RETURN_AFTER);
    let place = handed.place();
    let before = kernel.flows().bytes(place).to_backend;
    handed.client.write_all(b"question").unwrap();
    expect(&mut handed.backend, b"question");
    assert_eq!(kernel.flows().bytes(place).to_backend - before, 8);
}

/// It reads what it is sent while it sends itself: neither waits for the other.
#[test]
fn a_client_may_send_during_a_large_turn() {
    let Some(kernel) = kernel() else { return };
    let (mut handed, [withdrawn, _]) =
        session(&kernel, [Step::Withdrawn, Step::Returned], |_, _, _| {});
    let mut backend = handed.backend.try_clone().unwrap();
    let reading = thread::spawn(move || expect(&mut backend, &pattern(5, 1 << 20)));
    let mut client = handed.client.try_clone().unwrap();
    let asking = thread::spawn(move || {
        for piece in pattern(5, 1 << 20).chunks(10_000) {
            client.write_all(piece).unwrap();
            thread::sleep(Duration::from_micros(300));
        }
    });
    large_turns(&mut handed, 4, &withdrawn);
    asking.join().unwrap();
    reading.join().unwrap();
    question(&mut handed, &kernel);
}

/// A backend, which is this very thread, whose large turns its client reads, and ends with a small
/// turn of its own; after each it does something more.
fn turns_in_a_row(handed: &mut Handed, rounds: usize, mut more: impl FnMut(&mut Handed)) {
    const ROUND_BYTES: usize = 3 << 20;
    let bytes = pattern(6, ROUND_BYTES);
    for _ in 0..rounds {
        let (mut client, expected) = (handed.client.try_clone().unwrap(), bytes.clone());
        let reading = thread::spawn(move || {
            expect(&mut client, &expected);
            client.write_all(b"next").unwrap();
        });
        handed.backend.write_all(&bytes).unwrap();
        expect(&mut handed.backend, b"next");
        reading.join().unwrap();
        more(handed);
    }
}

/// Taken out in the wrong moment it would lose a buffer, but not each time.
#[test]
fn a_backend_leaves_the_verdict_again_and_again() {
    const ROUNDS: usize = 100;
    let Some(kernel) = kernel() else { return };
    let (mut handed, [withdrawn, _]) =
        session(&kernel, [Step::Withdrawn, Step::Returned], |_, _, _| {});
    turns_in_a_row(&mut handed, ROUNDS, |handed| {
        // After so many small ones it comes back at the latest.
        for _ in 0..=RELAPSE_SMALL_TURNS {
            handed.backend.write_all(b"answer").unwrap();
            expect(&mut handed.client, b"answer");
            handed.client.write_all(b"next").unwrap();
            expect(&mut handed.backend, b"next");
        }
    });
    println!("{} of {ROUNDS} large turns", withdrawn.load(Relaxed));
    assert!(withdrawn.load(Relaxed) > ROUNDS / 10, "{withdrawn:?}");
    question(&mut handed, &kernel);
}

/// The way out costs a wait, which a session in large turns does not pay for each.
#[test]
fn a_backend_in_large_turns_stays_out_of_the_verdict() {
    const ROUNDS: usize = 60;
    /// The first time, and when it came back after that; once more should the machine stand still
    /// for `RELAPSE_WITHIN`.
    const WITHDRAWALS_MAX: usize = 3;
    let Some(kernel) = kernel() else { return };
    let (mut handed, [withdrawn, _]) =
        session(&kernel, [Step::Withdrawn, Step::Returned], |_, _, _| {});
    turns_in_a_row(&mut handed, ROUNDS, |_| {});
    println!("{} of {ROUNDS} large turns", withdrawn.load(Relaxed));
    let count = withdrawn.load(Relaxed);
    assert!((1..=WITHDRAWALS_MAX).contains(&count), "{count}");
    question(&mut handed, &kernel);
}
