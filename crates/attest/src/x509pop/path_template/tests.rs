use super::*;

fn fill(template: &str) -> Result<String, String> {
    let uri_sans = BTreeMap::from([("rack".to_owned(), "a7".to_owned())]);
    let facts = Facts {
        fingerprint: "0beec7",
        trust_domain: "example.org",
        serial_hex: "0a1b",
        svid_path_trimmed: "host/one",
        subject_common_name: "Node One",
        subject_serial_number: "S-1",
        issuer_common_name: "Their CA",
        uri_sans: &uri_sans,
    };
    PathTemplate::parse(template).unwrap().fill(&facts)
}

#[track_caller]
fn fills(template: &str, expected: &str) {
    assert_eq!(fill(template).as_deref(), Ok(expected), "{template}");
}

#[test]
fn fields_stand_for_facts_of_the_certificate() {
    fills("/{{ .PluginName }}/{{.Fingerprint}}", "/x509pop/0beec7");
    fills("/{{ .TrustDomain }}/{{ .SerialNumberHex }}", "/example.org/0a1b");
    fills("/{{ .SVIDPathTrimmed }}", "/host/one");
    fills("/cn/{{ .Subject.CommonName }}", "/cn/Node One");
    fills("/{{ .Subject.SerialNumber }}/{{ .Issuer.CommonName }}", "/S-1/Their CA");
    fills("/rack/{{ .URISanSelectors.rack }}/x", "/rack/a7/x");
    fills("/plain", "/plain");
}

#[test]
fn texts_go_through_functions_as_with_sprig() {
    fills("/{{ lower .Subject.CommonName }}", "/node one");
    fills("/{{ .Subject.CommonName | upper }}", "/NODE ONE");
    fills("/{{ .Subject.CommonName | lower | replace \" \" \"-\" }}", "/node-one");
    fills("/{{ trimPrefix \"Node \" .Subject.CommonName }}", "/One");
    fills("/{{ .SVIDPathTrimmed | trimSuffix \"/one\" }}", "/host");
    fills("/{{ \" x \" | trim }}", "/x");
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    fills("/{{ sha256sum `abc` }}", &format!("/{sha256}"));
}

#[test]
fn comments_and_white_space_around_dashes_go() {
    fills("/a{{/* why */}}/b", "/a/b");
    fills("/a \n{{- `/x` -}}\n  /b", "/a/x/b");
    fills("/{{ `}}` }}{{ \"\\\"{{\" }}", "/}}\"{{");
}

#[test]
fn a_fact_that_the_certificate_lacks_is_an_error() {
    let error = fill("/{{ .URISanSelectors.row }}").unwrap_err();
    assert!(error.contains("x509pop://example.org/row/"), "{error}");
}

#[test]
fn a_path_does_not_grow_without_bounds() {
    let growing = format!("/{{{{ `{}` {} }}}}", "a".repeat(500), "| replace `a` `aa` ".repeat(40));
    assert_eq!(fill(&growing), Err("the path is too long".into()));
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let refused = |template: &str| PathTemplate::parse(template).expect_err(template);
    let field = |name: &str| PathTemplateError::Field(name.into());
    let function = |name: &str| PathTemplateError::Function(name.into());
    assert_eq!(refused("/{{ .Hostname }}"), field(".Hostname"));
    assert_eq!(refused("/{{ .Subject.Organization }}"), field(".Subject.Organization"));
    assert_eq!(refused("/{{ .URISanSelectors }}"), field(".URISanSelectors"));
    assert_eq!(refused("/{{ .URISanSelectors.a.b }}"), field(".URISanSelectors.a.b"));
    assert_eq!(refused("/{{ snakecase .PluginName }}"), function("snakecase"));
    assert_eq!(refused("/{{ if .PluginName }}a{{ end }}"), function("if"));
    assert_eq!(refused("/{{ 7 }}"), function("7"));
    assert_eq!(refused("/{{ index .DNSNames 0 }}"), function("index"));
    assert!(refused("/{{ .Hostname }}").to_string().contains(".Subject.CommonName"));
    assert!(refused("/{{ nope }}").to_string().contains("trimPrefix"));
    let arguments = |has| PathTemplateError::Arguments { name: "replace", takes: 3, has };
    assert_eq!(refused("/{{ replace \"a\" .PluginName }}"), arguments(2));
    assert_eq!(refused("/{{ .PluginName | replace \"a\" \"b\" \"c\" }}"), arguments(4));
}

#[test]
fn malformed_templates_are_refused() {
    let refused = |template: &str| PathTemplate::parse(template).expect_err(template);
    assert_eq!(refused("/{{ .PluginName"), PathTemplateError::NotClosed("{{"));
    assert_eq!(refused("/{{ \"a }}"), PathTemplateError::NotClosed("\""));
    assert_eq!(refused("/{{ `a }}"), PathTemplateError::NotClosed("`"));
    for template in ["", "x509pop/{{ .Fingerprint }}", "{{ .PluginName }}", "{{ `/` }}x"] {
        assert_eq!(refused(template), PathTemplateError::NoSlash, "{template}");
    }
    for action in [
        "",
        " ",
        "|",
        ".",
        "(lower .PluginName)",
        ".A .B",
        "\"a\\n\"",
        "$x",
        "lower 7",
        ".PluginName |",
        "| lower",
        "a.b",
    ] {
        let error = refused(&format!("/{{{{{action}}}}}"));
        assert!(matches!(error, PathTemplateError::Syntax(_)), "{action}: {error:?}");
    }
    // Only a function can take what comes before it.
    assert!(matches!(refused("/{{ \"a\" | \"b\" }}"), PathTemplateError::Syntax(_)));
    assert_eq!(refused(&format!("/{}", "a".repeat(2048))), PathTemplateError::Length(2049));
}
