use http::Request;
use serde_json::Value;

use super::*;

fn site(change: impl FnOnce(&mut Site)) -> Site {
    let mut site = Site {
        domains: vec!["oidc.test".parse().unwrap(), "other.test".parse().unwrap()],
        jwt_issuer: None,
        jwks_uri: None,
        path_prefix: PathPrefix::default(),
        allow_insecure_scheme: false,
    };
    change(&mut site);
    site
}

fn asked(headers: &[(&str, &str)], is_tls: bool) -> Asked {
    let request =
        headers.iter().fold(Request::get("/keys"), |request, (name, value)| request.header(*name, *value));
    Asked::read(&request.body(()).unwrap().into_parts().0, is_tls)
}

/// Issuer and address of the keys for a request over HTTP with these headers.
fn addresses(site: &Site, headers: &[(&str, &str)]) -> (String, String) {
    let document: Value = serde_json::from_str(&site.document(&asked(headers, false)).unwrap()).unwrap();
    let text = |name: &str| document[name].as_str().unwrap().to_owned();
    (text("issuer"), text("jwks_uri"))
}

#[track_caller]
fn check(site: &Site, headers: &[(&str, &str)], issuer: &str, jwks_uri: &str) {
    assert_eq!(addresses(site, headers), (issuer.to_owned(), jwks_uri.to_owned()));
}

const HOST: &[(&str, &str)] = &[("host", "oidc.test")];

#[test]
fn without_an_issuer_addresses_are_made_of_the_host_that_was_asked_for() {
    check(&site(|_| {}), HOST, "https://oidc.test", "https://oidc.test/keys");
    check(
        &site(|_| {}),
        &[("host", "other.test:8443")],
        "https://other.test:8443",
        "https://other.test:8443/keys",
    );
}

#[test]
fn the_prefix_stands_in_both_addresses_and_before_both_paths() {
    for (text, issuer) in [("/a/b", "https://oidc.test/a/b"), ("/a/b/", "https://oidc.test/a/b/")] {
        let site = site(|site| site.path_prefix = text.parse().unwrap());
        check(&site, HOST, issuer, "https://oidc.test/a/b/keys");
        assert_eq!(site.page("/a/b/keys"), Some(Page::Keys));
        assert_eq!(site.page("/a/b/.well-known/openid-configuration"), Some(Page::Discovery));
        for path in ["/keys", "/a/keys", "/a/b//keys", "/a/b/keys/", "/a/bkeys", "", "/a/b"] {
            assert_eq!(site.page(path), None, "{path}");
        }
    }
}

#[test]
fn a_configured_issuer_is_told_to_the_byte() {
    for (issuer, jwks_uri) in [
        ("https://issuer.test", "https://issuer.test/keys"),
        ("https://issuer.test/", "https://issuer.test/keys"),
        ("https://Issuer.test:443/x%2fy", "https://Issuer.test:443/x%2fy/keys"),
    ] {
        let site = site(|site| site.jwt_issuer = Some(issuer.parse().unwrap()));
        check(&site, HOST, issuer, jwks_uri);
    }
}

#[test]
fn a_configured_address_of_the_keys_wins_over_what_the_issuer_says() {
    let keys = "https://keys.test/jwks";
    let with_issuer = site(|site| {
        site.jwt_issuer = Some("https://issuer.test".parse().unwrap());
        site.jwks_uri = Some(keys.parse().unwrap());
    });
    check(&with_issuer, HOST, "https://issuer.test", keys);
    check(&site(|site| site.jwks_uri = Some(keys.parse().unwrap())), HOST, "https://oidc.test", keys);
}

#[test]
fn http_addresses_are_told_only_when_allowed_and_nobody_came_over_tls() {
    let allowed = site(|site| site.allow_insecure_scheme = true);
    check(&allowed, HOST, "http://oidc.test", "http://oidc.test/keys");
    assert!(!asked(HOST, true).is_insecure);
    for header in [
        ("x-forwarded-proto", "https"),
        ("x-forwarded-scheme", "HTTPS"),
        ("forwarded", "for=192.0.2.1; Proto=https, proto=http"),
        ("forwarded", "proto=\"https\""),
    ] {
        check(&allowed, &[HOST[0], header], "https://oidc.test", "https://oidc.test/keys");
    }
    check(&allowed, &[HOST[0], ("forwarded", "proto=http")], "http://oidc.test", "http://oidc.test/keys");
}

#[test]
fn the_host_that_a_proxy_names_counts() {
    let headers = [("host", "10.0.0.1:8080"), ("x-forwarded-host", "oidc.test")];
    check(&site(|_| {}), &headers, "https://oidc.test", "https://oidc.test/keys");
}

#[test]
fn a_host_that_is_no_domain_is_refused_and_named() {
    let site = site(|_| {});
    for host in ["evil.test", "OIDC.test", "oidc.test.", "", "xoidc.test", "oidc.test:1:2", "[::1]:1"] {
        let refused = site.document(&asked(&[("host", host)], true)).expect_err(host);
        assert!(refused.to_string().ends_with("is not allowed"), "{refused}");
    }
    let long = "x".repeat(5000);
    assert!(site.document(&asked(&[("host", &long)], true)).expect_err("long").to_string().len() < 200);
}

#[test]
fn a_configured_issuer_does_not_let_foreign_hosts_in() {
    let site = site(|site| site.jwt_issuer = Some("https://issuer.test".parse().unwrap()));
    assert!(site.document(&asked(&[("host", "issuer.test")], true)).is_err());
}

#[test]
fn the_document_has_the_members_that_the_standard_requires() {
    let document: Value = serde_json::from_str(&site(|_| {}).document(&asked(HOST, true)).unwrap()).unwrap();
    let expected = serde_json::json!({
        "issuer": "https://oidc.test",
        "jwks_uri": "https://oidc.test/keys",
        "authorization_endpoint": "",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256", "ES256", "ES384"],
    });
    assert_eq!(document, expected);
}

#[test]
fn domains_are_lower_case_host_names() {
    for good in ["a", "oidc.test", "localhost", "127.0.0.1", "xn--bcher-kva.test", "a-b.c1"] {
        assert!(good.parse::<Domain>().is_ok(), "{good}");
    }
    let long = "a.".repeat(127);
    for bad in
        ["", "A.test", "b\u{fc}cher.test", "a..b", ".a", "a.", "-a", "a-", "a b", "a:1", "a/b", "*.a", &long]
    {
        assert!(bad.parse::<Domain>().is_err(), "{bad}");
    }
    assert!("b\u{fc}cher.test".parse::<Domain>().expect_err("no ASCII").to_string().contains("punycode"));
}

#[test]
fn what_cannot_be_an_issuer_is_refused() {
    for (text, fault) in [
        ("issuer.test", WebUrlError::Scheme),
        ("spiffe://issuer.test", WebUrlError::Scheme),
        ("https://", WebUrlError::Host),
        ("https:///x", WebUrlError::Host),
        ("https://a@b", WebUrlError::UserInfo),
        ("https://a/?x", WebUrlError::Extra),
        ("https://a/#x", WebUrlError::Extra),
        ("", WebUrlError::Length(0)),
    ] {
        assert_eq!(text.parse::<WebUrl>().expect_err(text), fault, "{text}");
    }
    for text in ["https://a b", "https://\u{fc}", "https://[::1"] {
        assert!(matches!(text.parse::<WebUrl>(), Err(WebUrlError::Malformed(_))), "{text}");
    }
    assert!("HTTPS://a".parse::<WebUrl>().unwrap().is_https());
    assert!(!"http://a".parse::<WebUrl>().unwrap().is_https());
}

#[test]
fn a_prefix_is_a_plain_path() {
    for good in ["/", "/a", "/a/", "/a/b-c_1.2"] {
        assert!(good.parse::<PathPrefix>().is_ok(), "{good}");
    }
    for bad in ["", "a", "//", "/a//b", "/a b", "/a?b", "/a#b", "/a%2f", "/../a", "/a/.", "/\u{fc}"] {
        assert!(bad.parse::<PathPrefix>().is_err(), "{bad}");
    }
}
