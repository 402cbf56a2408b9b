//! What counts against an address for as long as its sessions live.

use super::client::Client;
use super::rig::{Choices, Rig};
use crate::control::limits::Policy;

const V30: u32 = 3 << 16;

async fn rig(max_connections: u32) -> Rig {
    let choices = Choices::default();
    Rig::start(Choices {
        limits: Policy {
            max_connections,
            ..choices.limits
        },
        ..choices
    })
    .await
}

fn code(port: u16) -> String {
    let mut client = Client::plain(port);
    client.startup(V30, &[("user", "alice")]);
    client.mechanisms().unwrap_err().0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_holds_its_place_until_its_worker_says_that_it_has_ended() {
    let rig = rig(2).await;
    rig.front.limits.follow_sessions();
    let (mut one, mut two) = (Client::plain(rig.port), Client::plain(rig.port));
    let (first, _) = one.session(V30);
    two.session(V30);
    assert_eq!(code(rig.port), "53300");
    rig.front.limits.session_ended(first);
    let mut three = Client::plain(rig.port);
    three.session(V30);
    assert_eq!(code(rig.port), "53300");
    rig.front.limits.worker_ended(1);
    Client::plain(rig.port).session(V30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_up_during_the_login_gives_the_place_back() {
    let rig = rig(1).await;
    rig.front.limits.follow_sessions();
    let mut client = Client::plain(rig.port);
    client.startup(V30, &[("user", "alice")]);
    assert!(client.log_in("wrong").is_err());
    assert!(client.is_closed());
    let mut again = Client::plain(rig.port);
    let next = loop {
        // The server closes first and counts then.
        again.startup(V30, &[("user", "alice")]);
        match again.log_in(super::rig::PASSWORD) {
            Ok(()) => break again,
            Err((code, _)) => assert_eq!(code, "53300"),
        }
        again = Client::plain(rig.port);
    };
    assert_eq!(code(rig.port), "53300");
    drop(next);
}
