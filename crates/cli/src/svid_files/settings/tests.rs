use super::*;
use crate::hcl;

fn read(text: &str) -> Result<FilesSettings, String> {
    let raw = RawFiles::read(&hcl::parse(text).unwrap()).map_err(|fault| fault.to_string())?;
    FilesSettings::try_from(raw).map_err(|fault| fault.to_string())
}

fn refused(text: &str, expected: &str) {
    let fault = read(&format!("dir = \"/d\"\n{text}")).expect_err(text);
    assert!(fault.contains(expected), "{text}: {fault}");
}

#[test]
fn the_sample_has_every_key_and_is_valid() {
    let sample = include_str!("../../../../../examples/files.hcl");
    let settings = read(sample).unwrap();
    assert_eq!(settings.dir, std::path::Path::new("/run/nginx-svid"));
    for (key, _) in TOP.iter().chain(RELOAD) {
        assert!(sample.contains(key), "{key} is not shown");
    }
}

#[test]
fn a_directory_alone_is_enough() {
    let settings = read("dir = \"/d\"").unwrap();
    assert_eq!(settings.wanted.names, Names::default());
    assert_eq!(
        (settings.access.key_mode, settings.grace_secs, settings.action),
        (0o600, 60, Action::Nothing)
    );
    assert_eq!(settings.withdrawal, Withdrawal::Remove);
    assert!(read("").unwrap_err().contains("dir is required"));
}

#[test]
fn an_empty_name_leaves_a_file_out() {
    let names = read("dir = \"/d\"\ncombined_file = \"\"\ncert_file = \"svid.pem\"").unwrap().wanted.names;
    assert_eq!((names.combined, names.cert.as_deref()), (None, Some("svid.pem")));
}

#[test]
fn bundles_alone_have_no_files_that_need_an_identity() {
    let wanted = read("dir = \"/d\"\nbundles_only = true\njwt_bundles_file = \"jwt.json\"").unwrap().wanted;
    assert_eq!((wanted.what, wanted.names), (What::Bundles, Names::of_bundles(Some("jwt.json".into()))));
    for other in [
        "key_file = \"k\"",
        "hint = \"h\"",
        "spiffe_id = \"spiffe://a/b\"",
        "jwt_svid \"a.token\" { audience = [\"a\"] }",
    ] {
        refused(&format!("bundles_only = true\n{other}"), "bundles_only");
    }
    assert_eq!(read("dir = \"/d\"\nbundles_only = false").unwrap().wanted.what, What::Identity);
}

#[test]
fn a_program_is_told_by_a_signal_or_by_a_command() {
    let action = |text: &str| read(&format!("dir = \"/d\"\nreload {{ {text} }}")).unwrap().action;
    assert_eq!(action("pid = 7"), Action::Signal(Signal::SIGHUP, Target::Pid(7)));
    assert_eq!(
        action("pid_file = \"/p\"\nsignal = \"USR1\""),
        Action::Signal(Signal::SIGUSR1, Target::PidFile("/p".into()))
    );
    assert_eq!(
        action("command = [\"a\", \"b c\"]\ntimeout = \"5s\""),
        Action::Command(vec!["a".into(), "b c".into()], Duration::from_secs(5))
    );
}

#[test]
fn tokens_have_a_file_and_audiences() {
    let text = "dir = \"/d\"\njwt_svid \"a.token\" { audience = [\"a\", \"b\"] }\njwt_svid \"c.token\" { audience = [\"c\"] }";
    let tokens = read(text).unwrap().wanted.tokens;
    assert_eq!(tokens.iter().map(|token| token.file.as_str()).collect::<Vec<_>>(), ["a.token", "c.token"]);
    assert_eq!(tokens[0].audience, ["a", "b"]);
}

#[test]
fn what_cannot_be_obeyed_is_refused_by_its_key() {
    for (text, expected) in [
        ("key_mod = 600", "did you mean key_mode?"),
        ("key_mode = 644", "key_mode: \"644\" is no mode"),
        ("owner = \"no-such-user\"", "owner: this machine knows no"),
        ("group = \"no-such-group\"", "group: this machine knows no"),
        ("grace = \"1d\"", "grace: "),
        ("on_withdrawal = \"shout\"", "on_withdrawal: \"shout\" is unknown"),
        ("spiffe_id = \"web\"", "spiffe_id: \"web\""),
        ("jwt_svid \"t\" { audience = [] }", "jwt_svid.t.audience"),
        ("jwt_svid \"t\" { }", "jwt_svid.t.audience is required"),
        ("jwt_svid \"t\" { audience = [\"\"] }", "no empty one"),
        ("reload { signal = \"HUP\" }", "reload.pid_file"),
        ("reload { signal = \"NOSUCH\" pid = 7 }", "reload.signal"),
        ("reload { pid = 0 }", "0 is no process"),
        ("reload { pid = 7 process = \"x\" }", "cannot both be set"),
        ("reload { pid = 7 command = [\"x\"] }", "cannot both be set"),
        ("reload { signal = \"HUP\" command = [\"x\"] }", "cannot both be set"),
        ("reload { command = [\"x\"] timeout = \"0s\" }", "reload.timeout"),
        ("reload { commnd = [\"x\"] }", "did you mean command?"),
        ("log_level = \"loud\"", "log_level"),
    ] {
        refused(text, expected);
    }
}

#[test]
fn flags_win_over_the_file_and_a_wish_of_the_flags_is_the_whole_wish() {
    let file = RawFiles::read(&hcl::parse("dir = \"/d\"\nhint = \"in\"\nkey_file = \"k\"").unwrap()).unwrap();
    let flags = RawFiles {
        spiffe_id: Some("spiffe://a/web".into()),
        key_file: Some("other".into()),
        ..RawFiles::default()
    };
    let settings = FilesSettings::try_from(flags.over(file)).unwrap();
    assert_eq!(settings.wanted.choice, Choice::Id("spiffe://a/web".parse().unwrap(), None));
    assert_eq!(settings.wanted.names.key.as_deref(), Some("other"));
    assert_eq!(settings.dir, std::path::Path::new("/d"));
}
