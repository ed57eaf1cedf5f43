//! Deadlines, signs of life, and how a connection ends.

use super::*;

#[test]
fn both_sides_keep_the_deadline() {
    let mut one = One::acceptor();
    one.receive(asked(1, 500_000));
    assert_eq!(one.machine.wake_at(), one.now + SECOND / 2);
    one.pass(SECOND / 2);
    let reason = Reset::Deadline;
    assert_eq!(one.ends(), [(1, End::Deadline)]);
    assert_eq!(one.frames(), [Frame::Reset { id: 1, reason }]);

    let mut one = One::dialler();
    let timed = Open {
        timeout_us: 500_000,
        ..open(Priority::Prompt)
    };
    one.handle(Event::Open {
        id: 1,
        open: timed,
        body: Bytes::new(),
        end: true,
    });
    one.frames();
    one.pass(SECOND);
    assert_eq!(one.ends(), [(1, End::Deadline)]);
    assert_eq!(one.frames(), [Frame::Reset { id: 1, reason }]);
}

#[test]
fn a_silent_peer_is_asked_once_and_then_taken_for_dead() {
    let mut one = One::dialler();
    one.open(1, Priority::Prompt, 0, true);
    one.frames();
    one.pass(5 * SECOND);
    assert_eq!(one.frames(), [Frame::Ping(1)]);
    one.receive(Frame::Pong(1));
    one.pass(5 * SECOND);
    assert_eq!(one.frames(), [Frame::Ping(2)]);
    one.pass(5 * SECOND);
    assert_eq!(one.frames(), []);
    assert!(one.actions().is_empty());
    one.pass(5 * SECOND);
    let actions = one.actions();
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::Closed(Close::Dead(_))))
    );
}

#[test]
fn pings_are_answered_and_a_flood_of_them_once() {
    let mut one = One::acceptor();
    for nonce in 0..100_000 {
        one.receive(Frame::Ping(nonce));
    }
    assert_eq!(one.frames(), [Frame::Pong(99_999)]);
}

#[test]
fn a_drain_finishes_what_was_accepted_and_tells_the_rest_that_it_was_not_begun() {
    let mut one = One::acceptor();
    one.receive(asked(1, 0));
    one.handle(Event::Drain);
    let reason = GoAway::Drain;
    assert_eq!(one.frames(), [Frame::GoAway { last: 1, reason }]);
    // These were under way.
    one.receive(asked(2, 0));
    one.receive(data(3, 10, true));
    one.handle(Event::Reply {
        id: 1,
        status: Status::OK,
        body: Bytes::new(),
        end: true,
    });
    assert_eq!(one.frames(), [replied(1, true)]);
    one.handle(Event::Eof);
    assert!(matches!(
        one.actions().pop(),
        Some(Action::Closed(Close::Drained))
    ));

    let mut one = One::dialler();
    for id in 1..=2 {
        one.open(id, Priority::Prompt, 0, true);
    }
    one.frames();
    one.receive(Frame::GoAway { last: 1, reason });
    assert_eq!(one.ends(), [(2, End::NotBegun)]);
    one.open(3, Priority::Prompt, 0, true);
    assert_eq!(one.ends(), [(3, End::NotBegun)]);
    one.receive(replied(1, true));
    assert!(matches!(
        one.actions().pop(),
        Some(Action::Closed(Close::Drained))
    ));
}

#[test]
fn a_drain_does_not_wait_for_ever() {
    let mut one = One::acceptor();
    one.receive(asked(1, 0));
    one.handle(Event::Drain);
    one.actions();
    for _ in 0..7 {
        one.receive(Frame::Pong(0));
        one.pass(4 * SECOND);
    }
    assert!(one.actions().is_empty());
    one.pass(2 * SECOND);
    let closed = one.actions().pop();
    assert!(matches!(closed, Some(Action::Closed(Close::DrainTimeout))));
}

#[test]
fn a_dialled_connection_without_calls_is_drained() {
    let mut one = One::dialler();
    for _ in 0..29 {
        one.receive(Frame::Pong(0));
        one.pass(4 * SECOND);
    }
    assert!(one.actions().is_empty());
    one.receive(Frame::Pong(0));
    one.pass(4 * SECOND);
    assert!(matches!(
        one.actions().pop(),
        Some(Action::Closed(Close::Drained))
    ));
}
