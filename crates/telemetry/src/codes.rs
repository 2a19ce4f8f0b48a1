//! The names of gRPC's codes as label values, spelled as SPIRE's library does.

use tonic::Code;

/// How many codes there are.
pub(crate) const CODES: usize = 17;

const NAMES: [&str; CODES] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The code's place in a table of all codes.
pub(crate) fn index(code: Code) -> usize {
    // gRPC numbers its codes from 0 to 16, and tonic's type holds those alone.
    usize::try_from(code as i32).unwrap_or(2).min(CODES - 1)
}

/// The value of the label `status`.
pub(crate) fn name(code: Code) -> &'static str {
    NAMES[index(code)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_called_as_in_go() {
        let names = [Code::Ok, Code::Cancelled, Code::PermissionDenied, Code::Unauthenticated].map(name);
        assert_eq!(names, ["OK", "Canceled", "PermissionDenied", "Unauthenticated"]);
        assert!((0..CODES).all(|number| index(Code::from_i32(i32::try_from(number).unwrap())) == number));
    }
}
