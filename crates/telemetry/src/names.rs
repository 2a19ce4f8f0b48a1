//! SPIRE's spelling of keys and labels.

/// Services that have a shorter name in keys.
const SHORT_NAMES: [(&str, &str); 8] = [
    ("spire.api.server.", ""),
    ("SpiffeWorkloadAPI", "WorkloadAPI"),
    ("envoy.service.secret.v3.SecretDiscoveryService", "SDS.v3"),
    ("grpc.health.v1.Health", "Health"),
    ("spire.api.agent.logger.v1.Logger", "Logger"),
    // The server's, without what all of its services begin with.
    ("logger.v1.Logger", "Logger"),
    ("spire.agent.debug.v1.Debug", "Debug"),
    ("spire.api.agent.delegatedidentity.v1.DelegatedIdentity", "DelegatedIdentity"),
];

/// The one method that the rule would spell otherwise.
const HARD_WIRED: (&str, &str) = ("SubscribeToX509SVIDs", "subscribe_to_x509_svids");

/// The key of a method, its parts joined by dots: `rpc.workload_api.fetch_x509svid`.
pub fn rpc_key(service: &str, method: &str) -> String {
    let short = SHORT_NAMES.iter().fold(service.to_owned(), |name, (long, short)| name.replace(long, short));
    let method = if method == HARD_WIRED.0 { HARD_WIRED.1.to_owned() } else { snake_case(method) };
    let parts = short.split('.').map(snake_case).chain([method]);
    parts.fold("rpc".to_owned(), |key, part| key + "." + &part)
}

/// Words apart by `_`: before a capital that is neither first nor last and has a small letter beside it. So runs of capitals
/// stay together, as in `fetch_jwt_bundles` and `batch_new_x509svid`. What is neither letter nor digit becomes `_`.
fn snake_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::with_capacity(name.len() + 8);
    for (i, &letter) in letters.iter().enumerate() {
        if !letter.is_alphanumeric() {
            out.push('_');
            continue;
        }
        let is_inside = i > 0 && i + 1 < letters.len();
        let begins_word = letter.is_uppercase()
            && is_inside
            && (letters[i - 1].is_lowercase() || letters[i + 1].is_lowercase())
            && !out.ends_with('_');
        if begins_word {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

/// A label's name or value with letters, digits and `_` alone: each run of other characters, and one `_` after it, becomes
/// one `_`.
pub(crate) fn sanitized(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    while let Some(letter) = letters.next() {
        if is_word(letter) {
            out.push(letter);
            continue;
        }
        while letters.next_if(|&next| !is_word(next)).is_some() {}
        letters.next_if_eq(&'_');
        out.push('_');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_have_the_keys_that_dashboards_look_for() {
        for (service, method, expected) in [
            ("SpiffeWorkloadAPI", "FetchX509SVID", "rpc.workload_api.fetch_x509svid"),
            ("SpiffeWorkloadAPI", "FetchX509Bundles", "rpc.workload_api.fetch_x509_bundles"),
            ("SpiffeWorkloadAPI", "FetchJWTBundles", "rpc.workload_api.fetch_jwt_bundles"),
            ("SpiffeWorkloadAPI", "ValidateJWTSVID", "rpc.workload_api.validate_jwtsvid"),
            ("envoy.service.secret.v3.SecretDiscoveryService", "StreamSecrets", "rpc.sds.v3.stream_secrets"),
            ("grpc.health.v1.Health", "Check", "rpc.health.check"),
            ("spire.api.server.logger.v1.Logger", "GetLogger", "rpc.logger.get_logger"),
            ("spire.api.agent.logger.v1.Logger", "GetLogger", "rpc.logger.get_logger"),
            ("spire.api.server.debug.v1.Debug", "GetInfo", "rpc.debug.v1.debug.get_info"),
            ("spire.agent.debug.v1.Debug", "GetInfo", "rpc.debug.get_info"),
            (
                "spire.api.agent.delegatedidentity.v1.DelegatedIdentity",
                "SubscribeToX509SVIDs",
                "rpc.delegated_identity.subscribe_to_x509_svids",
            ),
            ("spire.api.server.entry.v1.Entry", "BatchCreateEntry", "rpc.entry.v1.entry.batch_create_entry"),
            ("spire.api.server.svid.v1.SVID", "BatchNewX509SVID", "rpc.svid.v1.svid.batch_new_x509svid"),
            (
                "spire.api.server.localauthority.v1.LocalAuthority",
                "GetX509AuthorityState",
                "rpc.localauthority.v1.local_authority.get_x509_authority_state",
            ),
        ] {
            assert_eq!(rpc_key(service, method), expected);
        }
    }

    #[test]
    fn labels_have_letters_digits_and_lines_alone() {
        for (text, expected) in [
            ("example.org", "example_org"),
            ("/SpiffeWorkloadAPI/FetchX509SVID", "_SpiffeWorkloadAPI_FetchX509SVID"),
            ("a.-_b", "a_b"),
            ("a.__b", "a__b"),
            ("é", "_"),
            ("plain_1", "plain_1"),
            ("", ""),
        ] {
            assert_eq!(sanitized(text), expected, "{text}");
        }
    }
}
