use proptest::prelude::*;
use spindle_proto::convert::spiffe_id_to_proto;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::Audience;

use super::*;
use crate::fixtures::{NOW, entry};

fn name(service: &str) -> TokenName {
    let audience = Audience::new([service.to_owned()]).unwrap();
    TokenName::new(entry("a", &["unix:uid:1"]).spiffe_id, &audience)
}

fn token(issued_at: Timestamp, ttl_secs: i64) -> Arc<Token> {
    let entry = entry("a", &["unix:uid:1"]);
    let svid = types::Jwtsvid {
        token: "e30.e30.c2ln".into(),
        id: Some(spiffe_id_to_proto(&entry.spiffe_id)),
        expires_at: (issued_at + ttl_secs).unix_secs(),
        issued_at: issued_at.unix_secs(),
        hint: String::new(),
    };
    Arc::new(Token::received(&entry, svid, issued_at).unwrap())
}

/// Fresh, due or nothing at a moment.
fn state(held: &mut HeldTokens, service: &str, now: Timestamp) -> &'static str {
    match held.find(&name(service), now, |_| true) {
        Found::Fresh(_) => "fresh",
        Found::Due(_) => "due",
        Found::Nothing => "nothing",
    }
}

#[test]
fn a_token_is_fresh_then_due_then_gone() {
    let mut held = HeldTokens::new(2);
    held.put(name("x"), token(NOW, 100), NOW, Jitter::NONE);
    let at = |held: &mut HeldTokens, secs: i64| state(held, "x", NOW + secs);
    assert_eq!([0, 48, 50, 99].map(|secs| at(&mut held, secs)), ["fresh", "fresh", "due", "due"]);
    assert_eq!(at(&mut held, 100), "nothing", "the second named by exp is not part of its life");
    assert_eq!(held.len(), 0);
}

#[test]
fn many_who_waited_for_one_failed_renewal_count_it_once() {
    let mut held = HeldTokens::new(2);
    held.put(name("x"), token(NOW, 100), NOW, Jitter::NONE);
    let now = NOW + 60;
    assert!(held.on_failure(&name("x"), now, Jitter::NONE));
    assert!(!held.on_failure(&name("x"), now, Jitter::NONE));
    assert_eq!(state(&mut held, "x", now), "fresh", "it serves on without a try");
    assert_eq!(state(&mut held, "x", now + 1), "due");
    assert!(!held.on_failure(&name("unknown"), now, Jitter::NONE));
}

#[test]
fn what_is_not_sound_is_forgotten() {
    let mut held = HeldTokens::new(2);
    held.put(name("x"), token(NOW, 100), NOW, Jitter::NONE);
    assert!(matches!(held.find(&name("x"), NOW, |_| false), Found::Nothing));
    assert_eq!(state(&mut held, "x", NOW), "nothing");
    held.put(name("x"), token(NOW, 100), NOW, Jitter::NONE);
    held.tidy(NOW, |_| false);
    assert_eq!(held.len(), 0);
}

#[test]
fn a_place_for_none_holds_none() {
    let mut held = HeldTokens::new(0);
    held.put(name("x"), token(NOW, 100), NOW, Jitter::NONE);
    assert_eq!((state(&mut held, "x", NOW), held.len()), ("nothing", 0));
}

proptest! {
    /// Against a plain list in the order of use.
    #[test]
    fn the_ones_used_last_are_held(steps in prop::collection::vec((any::<bool>(), 0u8..6), 0..60)) {
        let (mut held, mut model) = (HeldTokens::new(3), Vec::<u8>::new());
        for (puts, number) in steps {
            let known = model.contains(&number);
            if puts {
                held.put(name(&number.to_string()), token(NOW, 100), NOW, Jitter::NONE);
            } else {
                let found = held.find(&name(&number.to_string()), NOW, |_| true);
                prop_assert_eq!(matches!(found, Found::Fresh(_)), known);
            }
            if puts || known {
                model.retain(|one| *one != number);
                model.push(number);
            }
            if model.len() > 3 {
                model.remove(0);
            }
            prop_assert_eq!((held.len(), held.by_use.len()), (model.len(), model.len()));
        }
    }
}
