//! The parsers against random bytes, and against good inputs with a few bytes changed. The same checks run without end in
//! `tests/fuzz`.

#[path = "../../spiffe-core/tests/support/explore.rs"]
mod explore;
#[path = "support/invariants.rs"]
mod invariants;

use explore::explore;
use spindle_store::{Kind, RecordKey, Store, StoreConfig, StoreKind, Transaction, export};

fn file(records: &[(&str, usize)]) -> Vec<u8> {
    let config = StoreConfig { kind: StoreKind::Memory, dir: "unused".into(), history: [7; 16] };
    let store = Store::open(&config).expect("in memory");
    for (name, bytes) in records {
        let put = Transaction::new().put(RecordKey::new(Kind(1), name), vec![7; *bytes]);
        store.commit_wait(put).expect("in memory").expect("no precondition");
    }
    let mut file = Vec::new();
    export(&store, &mut file).expect("into memory");
    file
}

#[test]
fn exported_stores() {
    explore(&[file(&[]), file(&[("a", 0), ("b", 20), ("c", 300)])], invariants::exported_store);
}
