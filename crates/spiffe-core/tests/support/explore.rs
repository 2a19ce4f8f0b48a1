//! Runs a check on inputs that a parser may meet: random bytes, good ones, and good ones with a few bytes changed.

/// Enough to visit each branch of the small parsers, few enough for every test run.
const ROUNDS: usize = 2000;

/// Runs a check on random bytes, on each seed, and on seeds with up to eight edits.
pub(crate) fn explore(seeds: &[Vec<u8>], check: fn(&[u8])) {
    bolero::check!().with_iterations(ROUNDS).with_type::<Vec<u8>>().for_each(|bytes| check(bytes));
    for seed in seeds {
        check(seed);
        bolero::check!()
            .with_iterations(ROUNDS)
            .with_type::<[(u8, u16, u8); 8]>()
            .for_each(|edits| check(&edited(seed, edits)));
    }
}

/// Applies edits: nothing, replace, flip a bit, insert, or cut a byte.
fn edited(seed: &[u8], edits: &[(u8, u16, u8)]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for &(kind, at, value) in edits {
        if bytes.is_empty() {
            break;
        }
        let at = usize::from(at) % bytes.len();
        match kind % 16 {
            0 | 1 => bytes[at] = value,
            2 => bytes[at] ^= 1 << (value % 8),
            3 => bytes.insert(at, value),
            4 => drop(bytes.remove(at)),
            _ => {}
        }
    }
    bytes
}
