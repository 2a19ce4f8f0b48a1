//! What must hold for any input of each parser here. Shared by the random tests and the fuzz targets in `tests/fuzz`.
#![allow(dead_code, reason = "each user takes its own part of this")]
#![allow(clippy::unwrap_used, reason = "a failing step is the finding")]

use spindle_ca::{CheckedCsr, SubjectKey};

/// An accepted request has an acceptable key, and its bytes are the whole of it.
pub(crate) fn csr(input: &[u8]) {
    let Ok(csr) = CheckedCsr::parse(input) else { return };
    SubjectKey::parse(csr.spki_der()).unwrap();
    assert!(input.windows(csr.spki_der().len()).any(|part| part == csr.spki_der()));
    assert!(CheckedCsr::parse(&[input, &[0]].concat()).is_err());
    assert!(CheckedCsr::parse(&input[..input.len() - 1]).is_err());
}

/// An accepted key is part of its DER, and nothing may follow it.
pub(crate) fn subject_key(input: &[u8]) {
    let Ok(key) = SubjectKey::parse(input) else { return };
    assert!(input.ends_with(key.bits()));
    assert!(SubjectKey::parse(&[input, &[0]].concat()).is_err());
}
