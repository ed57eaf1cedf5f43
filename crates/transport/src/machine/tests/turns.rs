//! What goes out and in, in which order, and within which bounds.

use super::*;

#[test]
fn a_small_call_waits_for_one_chunk_of_bulk_and_no_more() {
    let mut one = One::dialler();
    one.open(1, Priority::Bulk, 64 << 20, true);
    one.receive(Frame::Credit {
        id: 1,
        bytes: 64 << 20,
    });
    assert!(matches!(one.frame(), Some(Frame::Open { id: 1, .. })));
    for id in 2..20 {
        match one.frame() {
            Some(Frame::Data { id: 1, bytes, .. }) => assert_eq!(bytes.len(), 64 << 10),
            other => panic!("{other:?}"),
        }
        one.open(id, Priority::Prompt, 0, true);
        assert!(matches!(one.frame(), Some(Frame::Open { id: first, .. }) if first == id));
    }
}

#[test]
fn small_calls_leave_bulk_its_share() {
    let mut one = One::dialler();
    one.open(1, Priority::Bulk, 64 << 20, true);
    one.receive(Frame::Credit {
        id: 1,
        bytes: 64 << 20,
    });
    assert!(matches!(one.frame(), Some(Frame::Open { id: 1, .. })));
    let (mut prompt, mut bulk) = (0, 0);
    for id in 2..200 {
        one.open(id, Priority::Prompt, 60 << 10, true);
        match one.frame() {
            Some(Frame::Open { .. }) => prompt += 1,
            Some(Frame::Data { id: 1, .. }) => bulk += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(bulk >= prompt / 6, "{bulk} of bulk, {prompt} of prompt");
    assert!(prompt > bulk);
}

#[test]
fn bulk_streams_take_turns() {
    let mut one = One::dialler();
    for id in 1..=3 {
        one.open(id, Priority::Bulk, 3 << 20, true);
        one.receive(Frame::Credit { id, bytes: 3 << 20 });
    }
    let ids = |frames: Vec<Frame>| -> Vec<u64> {
        let id = |frame| match frame {
            Frame::Data { id, .. } => Some(id),
            _ => None,
        };
        frames.into_iter().filter_map(id).collect()
    };
    let mut turns = ids(one.frames());
    turns.dedup();
    assert_eq!(turns, [1, 2, 3, 1, 2, 3, 1, 2, 3]);
}

#[test]
fn nothing_is_sent_beyond_the_credit() {
    let mut one = One::dialler();
    one.open(1, Priority::Prompt, 1 << 20, true);
    let sent = |frames: Vec<Frame>| -> usize {
        let bytes = |frame: &Frame| match frame {
            Frame::Data { bytes, .. } => bytes.len(),
            _ => 0,
        };
        frames.iter().map(bytes).sum()
    };
    assert_eq!(sent(one.frames()), 64 << 10);
    one.receive(Frame::Credit { id: 1, bytes: 1000 });
    assert_eq!(sent(one.frames()), 1000);
    one.receive(Frame::Credit {
        id: 1,
        bytes: u32::MAX,
    });
    let frames = one.frames();
    assert!(matches!(frames.last(), Some(Frame::Data { end: true, .. })));
    assert_eq!(sent(frames), (1 << 20) - (128 << 10) - 1000);
}

#[test]
fn credit_is_given_for_what_was_read_and_grows_with_it_within_the_bounds() {
    let config = Config {
        window_bytes_max: 256 << 10,
        window_growth_bytes_max: 100 << 10,
        ..config()
    };
    let mut one = One::new(Side::Dialler, &config);
    one.open(1, Priority::Bulk, 0, true);
    one.frames();
    one.receive(replied(1, false));
    one.receive(data(1, 64 << 10, false));
    assert_eq!(one.frames(), [], "nobody has read");
    one.handle(Event::Consumed { id: 1, bytes: 1000 });
    assert_eq!(one.frames(), [], "too little to be worth a frame");
    one.handle(Event::Consumed {
        id: 1,
        bytes: 40 << 10,
    });
    // What was read, and once more the window.
    let given = 1000 + (40 << 10) + (64 << 10);
    assert_eq!(
        one.frames(),
        [Frame::Credit {
            id: 1,
            bytes: given
        }]
    );
    one.receive(data(1, given as usize, false));
    one.handle(Event::Consumed {
        id: 1,
        bytes: usize::MAX,
    });
    // All windows together have grown by 100 KiB and may grow no more.
    let given = (128 << 10) + (36 << 10);
    assert_eq!(
        one.frames(),
        [Frame::Credit {
            id: 1,
            bytes: given
        }]
    );
    one.receive(data(1, given as usize + 1, false));
    assert_eq!(one.breach(), Some(Breach::Credit(1)));
}

#[test]
fn a_reader_with_room_gives_credit_at_once_within_the_bounds() {
    let config = Config {
        window_bytes_max: 256 << 10,
        window_growth_bytes_max: 250 << 10,
        ..config()
    };
    let mut one = One::new(Side::Dialler, &config);
    let expect = |one: &mut One, id, bytes| one.handle(Event::Expected { id, bytes });
    let credit = |id, bytes| Frame::Credit { id, bytes };
    one.open(1, Priority::Prompt, 0, true);
    expect(&mut one, 1, 100 << 10);
    let frames = one.frames();
    assert!(matches!(frames[0], Frame::Open { id: 1, .. }), "{frames:?}");
    // What there is room for beyond the first window, once the peer knows the call.
    assert_eq!(frames[1..], [credit(1, 36 << 10)]);
    expect(&mut one, 1, 100 << 10);
    assert_eq!(one.frames(), [], "so much may come already");
    expect(&mut one, 1, 1 << 20);
    assert_eq!(one.frames(), [credit(1, 156 << 10)], "the greatest window");
    expect(&mut one, 1, 1 << 20);
    assert_eq!(one.frames(), [], "it is that by now");
    one.open(2, Priority::Prompt, 0, true);
    expect(&mut one, 2, 1 << 20);
    assert_eq!(one.frames()[1..], [credit(2, 58 << 10)], "all windows");
    // What came and was not read counts against the room.
    one.receive(replied(1, false));
    one.receive(data(1, 256 << 10, false));
    assert_eq!(one.breach(), None);
    one.receive(data(1, 1, false));
    assert_eq!(one.breach(), Some(Breach::Credit(1)));
}

#[test]
fn each_breach_closes_the_connection_with_a_reason() {
    let check = |side: Side, frames: Vec<Frame>, breach: Breach| {
        let mut one = One::new(side, &config());
        if side == Side::Dialler {
            one.open(1, Priority::Prompt, 0, true);
            one.frames();
        }
        for frame in frames {
            one.receive(frame);
        }
        assert_eq!(one.breach(), Some(breach));
        let last = one.frames().pop();
        let protocol = GoAway::Protocol;
        assert!(matches!(last, Some(Frame::GoAway { reason, .. }) if reason == protocol));
    };
    use Side::{Acceptor, Dialler};
    check(Dialler, vec![asked(2, 0)], Breach::Side);
    check(Acceptor, vec![replied(1, true)], Breach::Side);
    check(Acceptor, vec![asked(1, 0), asked(1, 0)], Breach::Order(1));
    check(Acceptor, vec![data(1, 1, true)], Breach::Unknown(1));
    check(Dialler, vec![replied(2, true)], Breach::Unknown(2));
    check(Dialler, vec![data(1, 1, false)], Breach::Turn(1));
    check(
        Dialler,
        vec![replied(1, false), replied(1, true)],
        Breach::Turn(1),
    );
    check(
        Acceptor,
        vec![asked(1, 0), data(1, 1, true)],
        Breach::Turn(1),
    );
    let much = || Frame::Credit {
        id: 1,
        bytes: u32::MAX,
    };
    let too_much = (0..70_000).map(|_| much()).collect();
    check(Dialler, too_much, Breach::CreditRange(1));
    let over = data(1, (64 << 10) + 1, false);
    check(Dialler, vec![replied(1, false), over], Breach::Credit(1));
    let flood = (1..10_000).map(|id| asked(id, 0)).collect();
    check(Acceptor, flood, Breach::Flood);
}

#[test]
fn frames_of_calls_that_are_over_mean_nothing() {
    let mut one = One::dialler();
    one.open(1, Priority::Prompt, 0, false);
    one.frames();
    one.handle(Event::Cancel {
        id: 1,
        reason: Reset::Cancelled,
    });
    assert_eq!(one.ends(), [(1, End::Dropped)]);
    for late in [
        replied(1, false),
        data(1, 10, true),
        Frame::Credit { id: 1, bytes: 1 },
    ] {
        one.receive(late);
    }
    assert!(one.actions().is_empty());
    let reason = Reset::Cancelled;
    assert_eq!(one.frames(), [Frame::Reset { id: 1, reason }]);
}

#[test]
fn a_call_that_never_left_is_cancelled_without_a_word() {
    let mut one = One::dialler();
    for id in 1..100_000 {
        one.open(id, Priority::Bulk, 100_000, false);
        one.handle(Event::Cancel {
            id,
            reason: Reset::Cancelled,
        });
        one.actions();
    }
    assert_eq!(one.frames(), []);
    assert_eq!(one.machine.calls(), 0);
}

#[test]
fn calls_beyond_the_limit_are_refused_and_others_go_on() {
    let config = Config {
        requests_max: 2,
        ..config()
    };
    let mut one = One::new(Side::Acceptor, &config);
    for id in 1..=3 {
        one.receive(asked(id, 0));
    }
    let reason = Reset::Refused;
    assert_eq!(one.frames(), [Frame::Reset { id: 3, reason }]);
    let reply = |id| Event::Reply {
        id,
        status: Status::OK,
        body: Bytes::new(),
        end: true,
    };
    one.handle(reply(1));
    assert_eq!(one.frames(), [replied(1, true)]);
    one.receive(asked(4, 0));
    one.handle(reply(4));
    assert_eq!(one.frames(), [replied(4, true)]);
    assert_eq!(one.ends(), [(1, End::Done), (4, End::Done)]);
}
