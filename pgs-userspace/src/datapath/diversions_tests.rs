//! What a session's diversions are counted by has another meaning too, which counting never takes.

use std::io::Write as _;
use std::thread;

use pgs_common::flow::BROKEN;

use super::arrivals_tests::expect;
use super::arrivals_tests::hand_over;
use super::arrivals_tests::kernel;
use super::arrivals_tests::pattern;

/// More than the verdict redirects of one turn.
const LARGE_TURN: usize = 1_000_000;

/// As after weeks of one turn in small segments.
#[test]
fn a_session_with_as_many_diversions_as_can_be_counted_is_not_taken_for_a_broken_one() {
    let Some(kernel) = kernel() else { return };
    let mut handed = hand_over(&kernel, b"", |_, _, _| {});
    handed.wait_for_kernel();
    let place = handed.place();
    let flows = kernel.flows();
    flows.set_diversions(place, BROKEN - 2);
    for turn in 1..=3 {
        let sent = pattern(turn, LARGE_TURN);
        let mut client = handed.client.try_clone().unwrap();
        let question = sent.clone();
        let asking = thread::spawn(move || client.write_all(&question).unwrap());
        expect(&mut handed.backend, &sent);
        asking.join().unwrap();
        let mut backend = handed.backend.try_clone().unwrap();
        let answer = sent.clone();
        let answering = thread::spawn(move || backend.write_all(&answer).unwrap());
        expect(&mut handed.client, &sent);
        answering.join().unwrap();
    }
    assert_eq!(flows.diversions(place), 2 * (BROKEN - 1));
    handed.small_turns(&kernel);
}
