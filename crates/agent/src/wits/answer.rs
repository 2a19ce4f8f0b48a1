//! Answers with WIT-SVIDs, encoded once for all streams that are sent the same (ADR 10).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use spindle_spiffe_core::Hint;

use super::{HeldWit, ShownWit};
use crate::cache::encode_wit_svids;

/// From this number on answers that nobody has any more are looked for, at the latest when as many have been added as are in use.
const SWEEP_MIN: usize = 64;

/// What tells one answer from another: each WIT-SVID by its number, with its hint.
type Names = Vec<(u64, Hint)>;

/// One answer. Its keys are wiped when the last stream lets go of it.
pub(crate) struct WitAnswer {
    held: Vec<(Arc<HeldWit>, Hint)>,
    frame: OnceLock<Bytes>,
}

impl WitAnswer {
    /// The framed `WITSVIDResponse` of the Workload API; built on first use.
    pub(crate) fn frame(&self) -> Bytes {
        let encode = || {
            encode_wit_svids(self.held.iter().map(|(held, hint)| {
                [held.spiffe_id.as_str(), held.token.as_str(), held.key_jwk.as_str(), hint.as_str()]
            }))
        };
        self.frame.get_or_init(encode).clone()
    }
}

impl fmt::Debug for WitAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WitAnswer").field("held", &self.held).finish_non_exhaustive()
    }
}

/// The answers in use.
#[derive(Default)]
pub(super) struct Answers {
    by_names: HashMap<Names, Weak<WitAnswer>>,
    sweep_at: usize,
}

impl Answers {
    /// The answer with what is ready of `shown`: the one in use, or a new one.
    pub(super) fn shared(&mut self, shown: &[ShownWit]) -> Arc<WitAnswer> {
        let held: Vec<(Arc<HeldWit>, Hint)> = shown
            .iter()
            .filter_map(|one| Some((one.state.as_ref().ok()?.clone(), one.matched.hint.clone())))
            .collect();
        let names: Names = held.iter().map(|(held, hint)| (held.number, hint.clone())).collect();
        if let Some(answer) = self.by_names.get(&names).and_then(Weak::upgrade) {
            return answer;
        }
        if self.by_names.len() >= self.sweep_at {
            self.by_names.retain(|_, answer| answer.strong_count() > 0);
            self.sweep_at = (self.by_names.len() * 2).max(SWEEP_MIN);
        }
        let answer = Arc::new(WitAnswer { held, frame: OnceLock::new() });
        self.by_names.insert(names, Arc::downgrade(&answer));
        answer
    }
}

#[cfg(test)]
mod tests {
    use spindle_keys::{Key, KeyType};
    use spindle_spiffe_core::Validity;
    use spindle_testkit::TestWitAuthority;
    use zeroize::Zeroizing;

    use super::*;
    use crate::cache::{Matched, Unready};
    use crate::fixtures::{NOW, entry};

    /// An identity with the WIT-SVID of that number.
    fn shown(number: u64, hint: &str) -> ShownWit {
        let entry = Arc::new(entry("a", &["unix:uid:1"]));
        let key = Key::generate(KeyType::EcP256).unwrap();
        let life = Validity { not_before: NOW, not_after: NOW + 60 };
        let authority = TestWitAuthority::new("prod.example", "w1", NOW);
        let token = authority.sign(&entry.spiffe_id, key.spki_der(), "ES256", life, 1).token;
        let held = HeldWit::received(number, &entry, &key, Zeroizing::new(token), NOW).unwrap();
        ShownWit { matched: Matched { entry, hint: hint.parse().unwrap() }, state: Ok(Arc::new(held)) }
    }

    #[test]
    fn equal_answers_are_one_and_are_encoded_once() {
        let mut answers = Answers::default();
        let same = [shown(1, "x"), shown(2, "")];
        let (one, two) = (answers.shared(&same), answers.shared(&same));
        assert!(Arc::ptr_eq(&one, &two));
        assert_eq!(one.frame().as_ptr(), two.frame().as_ptr());
        for other in [[shown(1, "y"), shown(2, "")], [shown(3, "x"), shown(2, "")]] {
            assert!(!Arc::ptr_eq(&one, &answers.shared(&other)));
        }
        let [first, mut second] = same;
        second.state = Err(Unready::Signing);
        assert!(!Arc::ptr_eq(&one, &answers.shared(&[first, second])), "what is not ready is no part of it");
    }

    #[test]
    fn answers_that_nobody_has_are_forgotten() {
        let mut answers = Answers::default();
        let kept = answers.shared(&[shown(0, "")]);
        let one = shown(1, "");
        let ready = |number| {
            let hint: Hint = format!("h{number}").parse().unwrap();
            [ShownWit { matched: Matched { hint, ..one.matched.clone() }, state: one.state.clone() }]
        };
        for number in 0..SWEEP_MIN * 4 {
            answers.shared(&ready(number));
        }
        assert!(answers.by_names.len() <= SWEEP_MIN, "{}", answers.by_names.len());
        assert!(
            answers
                .by_names
                .values()
                .any(|answer| answer.upgrade().is_some_and(|one| Arc::ptr_eq(&one, &kept)))
        );
    }
}
