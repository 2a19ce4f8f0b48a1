//! One entry by itself: fields, lifetimes, DNS names, foreign trust domains.

use std::collections::BTreeSet;
use std::net::IpAddr;

use spindle_server::guaranteed_svid_ttl_secs;
use spindle_spiffe_core::{DnsName, Timestamp};

use super::{Facts, Report, Severity, Subject};
use crate::entry_file::fault;

/// Below it an agent renews all the time: it begins at half of the lifetime, and a call may take some seconds.
const TTL_SECS_MIN: i32 = 60;

pub(super) fn look(subject: &Subject, facts: &Facts, report: &mut Report) {
    fields(subject, facts, report);
    lifetimes(subject, facts, report);
    dns_names(subject, report);
    if let Some(now) = facts.now
        && subject.entry.expires_at != 0
        && Timestamp::from_unix_secs(subject.entry.expires_at) <= now
    {
        let what = "the entry has ended and gives nobody anything any more".into();
        report.add(Severity::Warning, "entry_expired", subject, what, "delete it, or set a later end");
    }
    for name in &subject.entry.federates_with {
        let bare = name.strip_prefix("spiffe://").unwrap_or(name);
        if facts.without_bundle.contains(bare) {
            let what = format!(
                "it federates with {bare}, of which the server has no bundle: its workloads cannot verify anybody there"
            );
            report.add(Severity::Error, "bundle_missing", subject, what, format!("set the bundle of {bare}"));
        }
    }
}

/// What our server refuses to store, be it from an older one, from SPIRE or from a file.
fn fields(subject: &Subject, facts: &Facts, report: &mut Report) {
    if let Some(fault) = fault(&subject.entry, facts.trust_domain.as_ref()) {
        report.add(Severity::Error, "invalid", subject, fault, "correct the field that is named");
    }
}

fn lifetimes(subject: &Subject, facts: &Facts, report: &mut Report) {
    let (x509, jwt) = (subject.entry.x509_svid_ttl, subject.entry.jwt_svid_ttl);
    for (field, ttl) in [("x509_svid_ttl", x509), ("jwt_svid_ttl", jwt)] {
        if (1..TTL_SECS_MIN).contains(&ttl) {
            let what = format!("{field} of {ttl} s leaves no time for an outage: agents renew at half of it");
            report.add(
                Severity::Warning,
                "ttl_short",
                subject,
                what,
                format!("set at least {TTL_SECS_MIN} s"),
            );
        }
    }
    let Some(authority_secs) = facts.authority_secs else { return };
    let sure_secs = guaranteed_svid_ttl_secs(authority_secs);
    if i64::from(x509) > authority_secs {
        let what = format!(
            "x509_svid_ttl of {x509} s is longer than an authority lives ({authority_secs} s): no SVID gets it"
        );
        report.add(
            Severity::Error,
            "ttl_beyond_ca",
            subject,
            what,
            "shorten it, or lengthen the server's ca_ttl",
        );
    } else if i64::from(x509) > sure_secs {
        let what = format!(
            "x509_svid_ttl of {x509} s may be cut short: authorities of {authority_secs} s guarantee {sure_secs} s"
        );
        report.add(
            Severity::Warning,
            "ttl_beyond_ca",
            subject,
            what,
            "shorten it, or lengthen the server's ca_ttl",
        );
    }
}

fn dns_names(subject: &Subject, report: &mut Report) {
    let mut seen = BTreeSet::new();
    let names: Vec<DnsName> = subject.entry.dns_names.iter().filter_map(|name| name.parse().ok()).collect();
    for name in &subject.entry.dns_names {
        let mut warn = |what: String, remedy: &str| {
            report.add(Severity::Warning, "dns_name", subject, what, remedy);
        };
        if !seen.insert(name.to_ascii_lowercase()) {
            warn(format!("the DNS name {name} is there twice"), "leave it out once");
        } else if name.parse::<IpAddr>().is_ok() {
            warn(format!("{name} is an address: nobody verifies it as a DNS name"), "use a name");
        } else if name.strip_prefix("*.").is_some_and(|parent| !parent.contains('.')) {
            warn(format!("{name} covers a whole top-level domain, and clients refuse it"), "name the hosts");
        } else if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            warn(
                format!("{name} has capital letters, which some clients compare as they stand"),
                "write it in small letters",
            );
        }
        let covering =
            name.parse().ok().and_then(|name: DnsName| names.iter().find(|wide| wide.covers(&name)).cloned());
        if let Some(wide) = covering {
            let what = format!("the DNS name {name} is covered by {wide}");
            report.add(Severity::Note, "dns_name", subject, what, "leave one of the two out");
        }
    }
}
